"""Questions of a pool that are nearly the same: which earlier one a question joins, and what leaks.

Compared are the words that the model is shown: earlier turns, context, question, choices. Held-out files are
read by the same rules, and no training or validation example may be near a question in them.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from medtune.core.examples import Example
from medtune.data.grouping import Groups
from medtune.data.leaks import PROTECTED, Clash, guards
from medtune.data.near_duplicates import Allowed, Match, NearDuplicates, nearest
from medtune.data.pace import with_pace
from medtune.data.pool import Pool
from medtune.data.shingles import NONE, Numbers


class Nearness:
    """The near duplicates among some examples of a pool, by position."""

    def __init__(self, pool: Pool, positions: NDArray[np.int64], threshold: float) -> None:
        self._pool, self._positions = pool, positions
        self._index = NearDuplicates(threshold)
        self._index.add_all(zip(positions.tolist(), self._texts(positions), strict=True))
        self._has_near = np.zeros(len(positions), bool)

    def earlier(self) -> NDArray[np.int64]:
        """By position in the pool, the most similar example before it, or -1."""
        found = np.full(len(self._pool), -1, np.int64)
        first = self._index.names

        def is_before(asked: Numbers, near: Numbers) -> NDArray[np.bool_]:
            return first[near] < self._positions[asked]

        for asked, near, similarity in self._index.pairs(np.arange(len(self._positions)), is_before):
            best = nearest(asked, near, similarity)
            found[self._positions[asked[best]]] = first[near[best]]
            self._has_near[asked] = True
            self._has_near[np.searchsorted(self._positions, first[near])] = True
        return found

    def clashes(self, groups: Groups, left: NDArray[np.bool_]) -> Iterator[Clash]:
        """Examples with a near one in a split that is more protected, or that is ready-made; each with one.

        To be asked after `earlier`, which knows of most that nothing is near them.
        """
        ready, split = self._pool.table.numbers("ready"), groups.split
        kept = np.flatnonzero(~left[self._positions])
        first = {
            (theirs, is_ready): self._first(
                kept[(split[self._positions[kept]] == theirs) & (ready[self._positions[kept]] == is_ready)]
            )
            for theirs, is_ready in PROTECTED
        }

        def guard(asked: Numbers, near: Numbers) -> Numbers:
            there = {key: positions[near] for key, positions in first.items()}
            return guards(self._positions[asked], there, split, ready)

        asked = kept[self._has_near[kept]]
        for number, near, alike in self._best(asked, lambda *pair: guard(*pair) != NONE):
            [protected] = guard(np.array([number]), np.array([near])).tolist()
            yield Clash(int(self._positions[number]), protected, _detail(alike))

    def leakage(self, train: Numbers, test: Numbers) -> Iterator[Clash]:
        """Of each test question with a near one in training that one; both are positions."""
        trained = self._first(np.flatnonzero(np.isin(self._positions, train)))
        tested = np.flatnonzero(np.isin(self._positions, test) & self._has_near)
        for number, near, alike in self._best(tested, lambda _, near: trained[near] != NONE):
            yield Clash(int(trained[near]), int(self._positions[number]), _detail(alike))

    def _best(self, numbers: Numbers, allowed: Allowed) -> Iterator[tuple[int, int, float]]:
        """Of each of these that has an allowed set near it, the most similar one."""
        for asked, near, similarity in self._index.pairs(numbers, allowed):
            best = nearest(asked, near, similarity)
            yield from zip(asked[best].tolist(), near[best].tolist(), similarity[best].tolist(), strict=True)

    def _first(self, numbers: Numbers) -> Numbers:
        """Of each set the position of the first among these, or NONE: those of one set may lie in several
        ready-made splits."""
        first = np.full(len(self._index.names), NONE)
        numbers = numbers[self._index.set_of[numbers] != NONE][::-1]
        first[self._index.set_of[numbers]] = self._positions[numbers]
        return first

    def _texts(self, positions: NDArray[np.int64]) -> Iterator[str]:
        shown = with_pace(positions.tolist(), "indexing for near duplicates")
        return (shown_text(self._pool[position]) for position in shown)


def held_out_index(examples: Iterable[tuple[str, Example]], threshold: float) -> NearDuplicates:
    """An index of held-out questions, by where each stands."""
    index = NearDuplicates(threshold)
    index.add_all((place, shown_text(example)) for place, example in examples)
    return index


def near_held_out(
    index: NearDuplicates, pool: Pool, positions: NDArray[np.int64]
) -> Iterator[tuple[int, Match]]:
    """Positions of examples that are near a held-out question, with that."""
    shown = with_pace(positions.tolist(), "held-out questions")
    texts = (shown_text(pool[position]) for position in shown)
    for position, match in zip(positions.tolist(), index.find_all(texts), strict=True):
        if match is not None:
            yield position, match


def _detail(similarity: float) -> str:
    return f"nearly the same question ({similarity:.0%})"


def shown_text(example: Example) -> str:
    """What the model is shown of an example, with its choices in whatever order."""
    turns = [turn.content for turn in example.messages or []]
    return "\n".join([*turns, example.context or "", example.question, *sorted(example.choices or [])])
