"""Which questions belong together, and the split of each group.

Examples are placed in the order of the sources and their rows. One that has a group, a passage, a question
or a long answer in common with an earlier one joins that one's group and goes where it went; else it begins
a group, whose split is drawn by a hash of the seed and its name. So rows that are added behind move none
that were there, not even if they bridge two groups: they join the first, and what they share with the second
is a leak to be mended (medtune/data/leaks.py).

A hash alone would give small sets no share at all: of 40 groups at 0.1 one time in seventy none. So of the
first BALANCED rows validation and test get one of each ten at 0.1, drawn anew in each ten: a fixed distance
would take all its rows from one kind of a file that alternates.
"""

from collections import Counter
from collections.abc import Iterator
from random import Random

import numpy as np
from numpy.typing import NDArray

from medtune.data.params import DataParams
from medtune.data.pool import Pool

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
WITH_CHOICES = 2
"""Makes of the hash of a question's words another one; may_validate has 1."""
BALANCED = 500
"""Rows; beyond so many a hash gives each split its share within a few percent of it."""


class Groups:
    """The group of each placed example, by the position of the one that began it, and the group's split."""

    def __init__(self, pool: Pool, params: DataParams) -> None:
        self._pool, self._params = pool, params
        self._leaders: dict[int, int] = {}
        self._sharers: Counter[int] = Counter()
        ends = np.arange(len(pool) + 1)
        self._fact_ends = np.searchsorted(pool.table.numbers("fact_owners"), ends)
        self._earlier_ends = np.searchsorted(pool.table.numbers("earlier_owners"), ends)
        train, validation, test = 1 - params.validation - params.test, params.validation, params.test
        self._shares = ((train, validation, test), (train + test, validation, 0.0))
        self._rows = ([0, 0, 0], [0, 0, 0])
        self._random = Random(f"splits {params.seed}")
        self._due = [{split: self._random.random() for split in (VALIDATION, TEST)} for _ in self._rows]
        self.leader = np.full(len(pool), -1, np.int64)
        self.split = pool.table.numbers("split").copy()

    def place(self, position: int, near: int | None = None) -> None:
        """Give an example its group and split; `near` is an earlier one that is nearly the same question."""
        half = self._pool.table.may_validate[position]
        # What may only validate joins no group of those that may be tested with.
        keys = [(asked ^ half, noted ^ half) for asked, noted in self._keys(position)]
        known = [self._leaders[asked] for asked, _ in keys if asked in self._leaders]
        if near is not None and self._pool.table.may_validate[near] == half:
            known.append(int(self.leader[near]))
        leader = known[0] if known else position
        self.leader[position] = leader
        for _, noted in keys:
            self._leaders.setdefault(noted, leader)
        if leader == position:
            self.split[position] = self._drawn(position)
        else:
            self.split[position] = self.split[leader]
        self._rows[half][self.split[position]] += 1

    def _keys(self, position: int) -> Iterator[tuple[int, int]]:
        """What binds an example to others, the strongest first: by what it looks an earlier one up, and by
        what a later one finds it. A stock answer binds no more, nor does a stock question that begins
        conversations ("Can you help me?")."""
        table = self._pool.table
        if table.group[position]:
            yield table.group[position], table.group[position]
        if table.known_groups[position]:
            return
        if table.passage[position]:
            yield table.passage[position], table.passage[position]
        stem, question = table.stem[position], table.question[position]
        # The same words once open and once with choices are one question, with two sets of choices two: what
        # has choices is noted for what is open, and that for what has choices.
        if table.is_open[position]:
            yield stem, stem
            yield stem ^ WITH_CHOICES, stem
        else:
            yield question, question
            yield stem, stem ^ WITH_CHOICES
        for shared in [*self._earlier(position), *self._facts(position)]:
            self._sharers[shared] += 1
            if self._sharers[shared] <= self._params.stock_answers:
                yield shared, shared

    def _earlier(self, position: int) -> list[int]:
        start, end = self._earlier_ends[position], self._earlier_ends[position + 1]
        return self._pool.table.earlier[start:end].tolist()

    def _facts(self, position: int) -> list[int]:
        start, end = self._fact_ends[position], self._fact_ends[position + 1]
        return self._pool.table.facts[start:end].tolist()

    def _drawn(self, position: int) -> int:
        half = self._pool.table.may_validate[position]
        shares, rows = self._shares[half], self._rows[half]
        number = self._pool.table.split_draw[position]
        drawn = TRAIN
        if number < shares[TEST]:
            drawn = TEST
        elif number < shares[TEST] + shares[VALIDATION]:
            drawn = VALIDATION
        placed = sum(rows) + 1
        if placed > BALANCED or self._pool.table.known_groups[position]:
            return drawn
        due = self._due[half]
        overdue = {split: shares[split] * placed - rows[split] - due[split] for split in due}
        split = max(overdue, key=overdue.__getitem__)
        if overdue[split] <= 0:
            return TRAIN
        due[split] = self._random.random()
        return split


def placed_groups(
    pool: Pool, params: DataParams, repeated: NDArray[np.int64], near: NDArray[np.int64]
) -> Groups:
    """Every example of the pool but those `repeated`, placed; `near` has an earlier position, or -1, of
    each."""
    groups = Groups(pool, params)
    for position in np.setdiff1d(np.arange(len(pool)), repeated):
        if pool.table.ready[position] and not pool.table.may_validate[position]:
            groups.leader[position] = position
            continue
        earlier = int(near[position])
        groups.place(int(position), earlier if earlier >= 0 and groups.leader[earlier] >= 0 else None)
    return groups
