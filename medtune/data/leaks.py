"""What stands in two splits and must not: found, taken out of training and validation, measured in the end.

Two examples clash if they are in different splits and ask the same question (one perhaps with choices and
the other without), or have a long answer in common that is no stock sentence. A conversation asks in its
earlier turns too, and their answers are learned: it clashes with an example that asks what one of them does.

The one of the less protected split goes: training gives way to validation, and both to the test. Ready-made
splits are kept as they are; what clashes among them is measured, and `data.max_leakage` says how much of it
may be.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medtune.core.examples import Example
from medtune.data.grouping import TEST, TRAIN, VALIDATION, Groups
from medtune.data.params import DataParams
from medtune.data.pool import Pool, digest, stem_of
from medtune.data.shingles import NONE

if TYPE_CHECKING:
    from medtune.data.nearness import Nearness

PROTECTED = ((TEST, 1), (TEST, 0), (VALIDATION, 1), (VALIDATION, 0), (TRAIN, 1))
"""Splits, ready-made (1) or not, in the order in which what is like one of theirs has to leave."""
EARLIER = "the same question in an earlier turn"
SHARED = {"group": "the same group", "passage": "the same context"}


@dataclass(frozen=True)
class Clash:
    """Two examples, by position, of different splits; `protected` is the one that stays if one goes."""

    position: int
    protected: int
    detail: str


@dataclass(frozen=True)
class Repeats:
    """Positions that ask what another one asks: `same`, all but the first of those with one answer; and
    `conflicting`, every one of a question that has several."""

    same: NDArray[np.int64]
    conflicting: NDArray[np.int64]


def repeats(pool: Pool) -> Repeats:
    """Questions that are there more than once.

    Ready-made splits, and questions made from an ontology, count for nothing here. Whether a row is the
    `same` as an earlier one depends on earlier rows alone.
    """
    question, answer = pool.table.numbers("question"), pool.table.numbers("answer")
    counted = (pool.table.numbers("ready") == 0) & (pool.table.numbers("known_groups") == 0)
    same, conflicting = [], []
    for positions in _sharing(question, np.flatnonzero(counted)):
        answers = answer[positions].tolist()
        same += [at for n, at in enumerate(positions.tolist()) if answers[n] in answers[:n]]
        if len(set(answers)) > 1:
            conflicting += positions.tolist()
    return Repeats(np.array(sorted(same), np.int64), np.array(sorted(conflicting), np.int64))


def clashes(pool: Pool, groups: Groups, left: NDArray[np.bool_], params: DataParams) -> Iterator[Clash]:
    """Examples with one that they must leave room for, each once for each thing shared."""
    table = pool.table
    kept = np.flatnonzero(~left)
    for positions in _sharing(table.numbers("question"), kept):
        yield from _clashing(positions, positions, pool, groups, "the same question")
    is_open = table.numbers("is_open") == 1
    for positions in _sharing(table.numbers("stem"), kept):
        # With other choices it is another question, without any it is the same.
        with_choices, without = positions[~is_open[positions]], positions[is_open[positions]]
        yield from _clashing(with_choices, without, pool, groups, "the same question")
        yield from _clashing(without, with_choices, pool, groups, "the same question")
    for name, detail in SHARED.items():
        for positions in _sharing(table.numbers(name), kept):
            yield from _clashing(positions, positions, pool, groups, detail)
    keys, whose = _asked_and_earlier(pool, kept)
    # Only what an earlier turn asks: all other stems are seen to above.
    for found in _sharing(keys, np.flatnonzero(np.isin(keys, keys[len(kept) :]))):
        earlier, asked = whose[found[found >= len(kept)]], whose[found[found < len(kept)]]
        yield from _clashing(np.unique(earlier), asked, pool, groups, EARLIER)
    rows = _facts(pool, left, params)
    for found in _sharing(table.numbers("facts"), rows):
        positions = np.unique(table.numbers("fact_owners")[found])
        yield from _clashing(positions, positions, pool, groups, "the same long answer")


def asked_as_held_out(
    held_out: Iterable[tuple[str, Example]], pool: Pool, learned: NDArray[np.int64]
) -> Iterator[tuple[int, str]]:
    """Which of those learned ask what a held-out example asks, and where that stands.

    As between splits: one with choices and one without ask the same, and so does an earlier turn.
    """
    stems: dict[int, str] = {}
    questions: dict[int, str] = {}
    for place, example in held_out:
        stem = digest(stem_of(example))
        stems.setdefault(stem, place)
        if example.choices is None:
            questions.setdefault(stem, place)
    table = pool.table
    is_learned = np.zeros(len(pool), bool)
    is_learned[learned] = True
    for position in learned.tolist():
        known = stems if table.is_open[position] else questions
        if (stem := table.stem[position]) in known:
            yield position, known[stem]
    for stem, position in zip(table.earlier, table.earlier_owners, strict=True):
        if is_learned[position] and stem in stems:
            yield position, stems[stem]


def leakage(
    pool: Pool,
    splits: Mapping[str, NDArray[np.int64]],
    left: NDArray[np.bool_],
    params: DataParams,
    nearness: "Nearness | None",
) -> list[Clash]:
    """Of each test question that training has too, in whatever way, one clash; in the order of the test.

    It is asked of the splits as they are, from the side of the test: what `clashes` missed would show here.
    """
    table, train, test = pool.table, splits["train"], splits["test"]
    is_open, stem, question = (table.numbers(name) for name in ("is_open", "stem", "question"))
    found: dict[int, Clash] = {}

    def note(
        tested: NDArray[np.int64], trained: NDArray[np.int64], keys: NDArray[np.uint64], detail: str
    ) -> None:
        for position, partner in _partners(tested, trained, keys):
            found.setdefault(position, Clash(partner, position, detail))

    note(test, train, question, "the same question")
    note(test[is_open[test] == 1], train, stem, "the same question")
    note(test, train[is_open[train] == 1], stem, "the same question")
    for name, detail in SHARED.items():
        note(test, train, table.numbers(name), detail)
    keys, whose = _asked_and_earlier(pool, np.arange(len(pool)))
    trained = len(pool) + np.flatnonzero(np.isin(whose[len(pool) :], train))
    for position, row in _partners(test, trained, keys):
        found.setdefault(position, Clash(int(whose[row]), position, EARLIER))
    rows, owners = _facts(pool, left, params), table.numbers("fact_owners")
    stated = (
        [rows[np.isin(owners[rows], positions)] for positions in (test, train)] if len(rows) else [rows, rows]
    )
    for row, partner in _partners(stated[0], stated[1], table.numbers("facts")):
        position = int(owners[row])
        found.setdefault(position, Clash(int(owners[partner]), position, "the same long answer"))
    for clash in nearness.leakage(train, test) if nearness else ():
        found.setdefault(clash.protected, clash)
    return [found[position] for position in test.tolist() if position in found]


def _asked_and_earlier(pool: Pool, among: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The stems of these examples and, behind them, of what their earlier turns ask; and whose they are."""
    table = pool.table
    rows = np.flatnonzero(np.isin(table.numbers("earlier_owners"), among))
    keys = np.concatenate([table.numbers("stem")[among], table.numbers("earlier")[rows]])
    return keys, np.concatenate([among, table.numbers("earlier_owners")[rows]])


def _facts(pool: Pool, left: NDArray[np.bool_], params: DataParams) -> NDArray[np.int64]:
    """Rows of the table's facts: of examples that are kept, without stock sentences of files."""
    owners, facts = pool.table.numbers("fact_owners"), pool.table.numbers("facts")
    if not len(owners):
        return np.zeros(0, np.int64)
    rows = np.flatnonzero(~left[owners])
    _, key, times = np.unique(facts[rows], return_inverse=True, return_counts=True)
    is_known = pool.table.numbers("known_groups")[owners[rows]] == 1
    return rows[(times[key] <= params.stock_answers) | is_known]


def _partners(
    tested: NDArray[np.int64], trained: NDArray[np.int64], keys: NDArray[np.uint64]
) -> Iterator[tuple[int, int]]:
    """Of those tested with a key that one trained has too, other than 0, it and the first of the latter."""
    tested, trained = tested[keys[tested] != 0], np.sort(trained[keys[trained] != 0])
    known, first = np.unique(keys[trained], return_index=True)
    if len(known):
        place = np.minimum(np.searchsorted(known, keys[tested]), len(known) - 1)
        shared = known[place] == keys[tested]
        yield from zip(tested[shared].tolist(), trained[first[place[shared]]].tolist(), strict=True)


def _sharing(keys: NDArray[np.uint64], among: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The members of `among` by the key that they share, of keys other than 0 that several have."""
    among = among[keys[among] != 0]
    order = among[np.argsort(keys[among], kind="stable")]
    differs = keys[order][1:] != keys[order][:-1]
    edges = np.flatnonzero(np.r_[True, differs, True]) if len(order) else np.zeros(0, np.int64)
    several = np.flatnonzero(np.diff(edges) > 1)
    for start, end in zip(edges[several], edges[several + 1], strict=True):
        yield order[start:end]


def _clashing(
    asked: NDArray[np.int64], others: NDArray[np.int64], pool: Pool, groups: Groups, detail: str
) -> Iterator[Clash]:
    splits, ready = groups.split, pool.table.numbers("ready")
    if len(np.unique(np.r_[splits[asked], splits[others]])) < 2:
        return
    first = {}
    for split, is_ready in PROTECTED:
        matching = others[(splits[others] == split) & (ready[others] == is_ready)]
        first[split, is_ready] = np.full(len(asked), matching[0] if len(matching) else NONE)
    kept = guards(asked, first, splits, ready)
    for position, protected in zip(asked.tolist(), kept.tolist(), strict=True):
        if protected != NONE:
            yield Clash(position, protected, detail)


def guards(
    asked: NDArray[np.int64],
    first: Mapping[tuple[int, int], NDArray[np.int64]],
    split: NDArray[np.int8],
    ready: NDArray[np.int8],
) -> NDArray[np.int64]:
    """The position that each of those asked must leave room for, or NONE.

    `first` has by split and ready-made or not (PROTECTED) a position that shares something with it, or NONE.
    """
    found = np.full(len(asked), NONE)
    for (theirs, is_ready), there in first.items():
        # Of two, the ready-made one stays whatever its split.
        applies = np.where(ready[asked] == is_ready, theirs > split[asked], theirs != split[asked])
        applies &= ready[asked] <= is_ready
        found = np.where((found == NONE) & applies, there, found)
    return found
