"""Sides that take turns, and what their figures say: medians, with the spread between rounds.

On a machine that others use, one slow step says nothing about a side. So all sides do a little in every
round, in an order that alternates, and are compared round by round: what slows a round slows all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Of one figure or more; quartiles are among them or between two of them."""
        if len(figures) == 1:
            return cls(figures[0], figures[0], figures[0])
        low, middle, high = quantiles(figures, n=4, method="inclusive")
        return cls(middle, low, high)

    def shown(self, digits: int = 2) -> str:
        """As a table has it: 9.40 (8.90 to 9.80)."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    def as_list(self) -> list[float]:
        """The quartiles, as JSON has them."""
        return [self.low, self.high]


def in_turns(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each side returned in each round; every other round goes through the sides backwards."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides)
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(sides[name]())
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times larger ours are than theirs, round by round."""
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])
