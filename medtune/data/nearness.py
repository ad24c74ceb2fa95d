"""Questions of a pool that are nearly the same: which earlier one a question joins, and what leaks.

Compared are the words that the model is shown: earlier turns, context, question, choices. Held-out files are
read by the same rules, and no training or validation example may be near a question in them.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from medtune.core.examples import Example
from medtune.data.grouping import Groups
from medtune.data.leaks import Clash
from medtune.data.near_duplicates import Match, NearDuplicates
from medtune.data.pool import Pool


class Nearness:
    """The near duplicates among some examples of a pool, by position."""

    def __init__(self, pool: Pool, positions: NDArray[np.int64], threshold: float) -> None:
        self._pool, self._positions = pool, positions
        self._index = NearDuplicates(threshold)
        self._index.add_all(zip(positions.tolist(), self._texts(positions), strict=True))

    def earlier(self) -> NDArray[np.int64]:
        """By position in the pool, the most similar example before it, or -1."""
        found = np.full(len(self._pool), -1, np.int64)
        matches = self._index.find_all(
            self._texts(self._positions), lambda asked, near: near < self._positions[asked]
        )
        for position, match in zip(self._positions.tolist(), matches, strict=True):
            if match is not None:
                found[position] = match[0]
        return found

    def clashes(self, groups: Groups, left: NDArray[np.bool_]) -> Iterator[Clash]:
        """Examples with a near one in a split that is more protected, or that is ready-made; each with
        one."""
        ready = self._pool.table.numbers("ready") == 1
        kept = self._positions[~left[self._positions]]

        def leaks(asked: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.bool_]:
            mine = kept[asked]
            is_higher = groups.split[near] > groups.split[mine]
            # Of two, the ready-made one stays whatever its split.
            guarded = np.where(ready[near] == ready[mine], is_higher, ready[near] & ~ready[mine])
            return (groups.split[near] != groups.split[mine]) & guarded & ~left[near]

        for position, match in zip(
            kept.tolist(), self._index.find_all(self._texts(kept), leaks), strict=True
        ):
            if match is not None:
                yield Clash(position, int(match[0]), f"nearly the same question ({match[1]:.0%})")

    def _texts(self, positions: NDArray[np.int64]) -> Iterator[str]:
        return (shown_text(self._pool[int(position)]) for position in positions)


def held_out_index(examples: Iterable[tuple[str, Example]], threshold: float) -> NearDuplicates:
    """An index of held-out questions, by where each stands."""
    index = NearDuplicates(threshold)
    index.add_all((place, shown_text(example)) for place, example in examples)
    return index


def near_held_out(
    index: NearDuplicates, pool: Pool, positions: NDArray[np.int64]
) -> Iterator[tuple[int, Match]]:
    """Positions of examples that are near a held-out question, with that."""
    texts = (shown_text(pool[int(position)]) for position in positions)
    for position, match in zip(positions.tolist(), index.find_all(texts), strict=True):
        if match is not None:
            yield position, match


def shown_text(example: Example) -> str:
    """What the model is shown of an example, with its choices in whatever order."""
    turns = [turn.content for turn in example.messages or []]
    return "\n".join([*turns, example.context or "", example.question, *sorted(example.choices or [])])
