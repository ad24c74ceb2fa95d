"""What stands in two splits and must not: found, taken out of training and validation, measured in the end.

Two examples clash if they are in different splits and ask the same question (one perhaps with choices and
the other without), or have a long answer in common that is no stock sentence. The one of the less protected
split goes: training gives way to validation, and both to the test. Ready-made splits are kept as they are;
what clashes among them is measured, and `data.max_leakage` says how much of it may be.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtune.data.grouping import SPLITS, TEST, TRAIN, Groups
from medtune.data.params import DataParams
from medtune.data.pool import Pool


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
    """Examples of different splits that share a question or a fact, each once for each thing shared."""
    table = pool.table
    kept = np.flatnonzero(~left)
    for positions in _sharing(table.numbers("stem"), kept):
        yield from _clashing(positions, pool, groups, "the same question")
    for positions in _sharing(table.numbers("group"), kept):
        yield from _clashing(positions, pool, groups, "the same group")
    for positions in _sharing(table.numbers("passage"), kept):
        yield from _clashing(positions, pool, groups, "the same context")
    facts, owners = table.numbers("facts"), table.numbers("fact_owners")
    for rows in _sharing(facts, np.flatnonzero(~left[owners]) if len(owners) else owners):
        positions = np.unique(owners[rows])
        if len(positions) <= params.stock_answers or table.known_groups[positions[0]]:
            yield from _clashing(positions, pool, groups, "the same long answer")


def _sharing(keys: NDArray[np.uint64], among: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The members of `among` by the key that they share, of keys other than 0 that several have."""
    among = among[keys[among] != 0]
    order = among[np.argsort(keys[among], kind="stable")]
    differs = keys[order][1:] != keys[order][:-1]
    edges = np.flatnonzero(np.r_[True, differs, True]) if len(order) else np.zeros(0, np.int64)
    several = np.flatnonzero(np.diff(edges) > 1)
    for start, end in zip(edges[several], edges[several + 1], strict=True):
        yield order[start:end]


def _clashing(positions: NDArray[np.int64], pool: Pool, groups: Groups, detail: str) -> Iterator[Clash]:
    splits = groups.split[positions]
    if (splits == splits[0]).all():
        return
    ready = pool.table.numbers("ready")[positions] == 1
    # What is ready-made stays whatever it is; of the others the test does.
    protected = positions[ready] if ready.any() else positions
    guard = protected[np.argmax(groups.split[protected])]
    for position in positions[splits != groups.split[guard]]:
        if detail != "the same question" or _same_question(pool, int(position), int(guard)):
            yield Clash(int(position), int(guard), detail)


def _same_question(pool: Pool, one: int, other: int) -> bool:
    """Of the same words: with the same choices, or one without any."""
    table = pool.table
    return bool(table.is_open[one] or table.is_open[other] or table.question[one] == table.question[other])


def leakage(
    groups: Groups, splits: dict[str, NDArray[np.int64]], found: list[Clash]
) -> tuple[float, list[Clash]]:
    """The share of test questions that clash with one in training, and those clashes, a test question
    each."""
    here = {name: set(positions.tolist()) for name, positions in splits.items()}
    worst: dict[int, Clash] = {}
    for clash in found:
        ends = {int(groups.split[end]): end for end in (clash.position, clash.protected)}
        if ends.get(TRAIN) in here[SPLITS[TRAIN]] and ends.get(TEST) in here[SPLITS[TEST]]:
            worst.setdefault(ends[TEST], clash)
    size = len(here[SPLITS[TEST]])
    return (len(worst) / size if size else 0.0), list(worst.values())
