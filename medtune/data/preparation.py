"""From sources to splits, step by step: read, without repeats, grouped, without leaks, drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.data.faults import Rejects
from medtune.data.grouping import TEST, Groups, placed_groups
from medtune.data.leaks import Clash, Repeats, asked_as_held_out, clashes, leakage, repeats
from medtune.data.nearness import Nearness, held_out_index, near_held_out
from medtune.data.params import DataParams
from medtune.data.pool import Pool, Selection
from medtune.data.sources import read_held_out, read_sources
from medtune.data.splits import Positions, counts, drawn_splits, overlaps, uneven_shares

SHOWN_LEAKS = 10


@dataclass(frozen=True)
class Prepared:
    """What came of the sources: positions in the pool by split, what was left out, and what there is to
    say."""

    pool: Pool
    groups: Groups
    positions: dict[str, Positions]
    rejects: Rejects
    leakage: float
    params: DataParams
    notes: list[str]
    repeated: NDArray[np.bool_]
    """Repeats and contradictions, by position: they make no answer a stock sentence."""

    @cached_property
    def splits(self) -> dict[str, Selection]:
        """The examples of each split, in their order."""
        return {
            split: Selection(self.pool, positions, self.groups.leader)
            for split, positions in self.positions.items()
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """Examples by split and kind."""
        return counts(self.pool, self.positions)

    def report(self) -> dict[str, Any]:
        """What metrics/data.json holds: how many there are, of which source, what overlaps, what was left
        out."""
        source = self.pool.table.numbers("source")
        return {
            "examples": self.counts(),
            "sources": {
                name: {split: int((source[found] == number).sum()) for split, found in self.positions.items()}
                for number, name in enumerate(self.params.sources)
            },
            "left_out": self.rejects.counts(self.params.sources),
            "overlaps": overlaps(
                self.pool, self.groups, self.positions, self.repeated, self.params.stock_answers
            ),
            "leakage": self.leakage,
        }


def prepare(params: DataParams) -> Prepared:
    """Read the sources and split them.

    MedtuneError: a source cannot be read, rows are faulty, sizes cannot be filled, or more leaks from
    training into the test than `data.max_leakage` allows.
    """
    pool, rejects = Pool(params.seed), Rejects()
    notes = read_sources(params, pool, rejects)
    held_out, warnings = read_held_out(params)
    return split(pool, params, rejects, [*notes, *warnings], held_out)


def split(
    pool: Pool,
    params: DataParams,
    rejects: Rejects,
    notes: list[str],
    held_out: Sequence[tuple[str, Example]] = (),
) -> Prepared:
    """Split what was read; errors as for `prepare`. `held_out` are questions, each with where it stands."""
    left = np.zeros(len(pool), bool)
    repeated = repeats(pool)
    otherwise = dict.fromkeys(repeated.conflicting.tolist(), "its question has another answer in another row")
    _leave_out(pool, params, otherwise, "conflicting_answers", rejects, left)
    rejects.refuse(params.on_error)
    again = np.setdiff1d(repeated.same, repeated.conflicting).tolist()
    same = dict.fromkeys(again, "the same question and answer as an earlier row")
    _leave_out(pool, params, same, "duplicate", rejects, left)
    # What is a stock sentence is told once: by the rows that leave for a leak it would be another.
    without = left.copy()
    nearness = _nearness(pool, params, repeated)
    near = nearness.earlier() if nearness else np.full(len(pool), -1, np.int64)
    # Contradictions too, or one that is added would change how many rows were placed before others.
    groups = placed_groups(pool, params, repeated.same, near)
    found = list(clashes(pool, groups, without, params))
    if nearness:
        found += nearness.clashes(groups, left)
    _leave_out_held_out(pool, params, groups, held_out, rejects, left)
    _leave_out_leaks(pool, params, found, rejects, left)
    positions = drawn_splits(pool, groups, left, params)
    leaks = leakage(pool, positions, without, params, nearness)
    share = len(leaks) / len(positions["test"]) if leaks else 0.0
    _require_no_leaks(pool, params, share, leaks, len(positions["test"]))
    notes = [*notes, *uneven_shares(pool, groups, left, params)]
    return Prepared(pool, groups, positions, rejects, share, params, notes, without)


def _nearness(pool: Pool, params: DataParams, repeated: Repeats) -> Nearness | None:
    """The near duplicates among what is read from files, if they are asked for; an ontology's groups are
    known."""
    if params.near_duplicates is None:
        return None
    loose = np.flatnonzero(pool.table.numbers("known_groups") == 0)
    return Nearness(pool, np.setdiff1d(loose, repeated.same), params.near_duplicates)


def _leave_out_held_out(
    pool: Pool,
    params: DataParams,
    groups: Groups,
    held_out: Sequence[tuple[str, Example]],
    rejects: Rejects,
    left: NDArray[np.bool_],
) -> None:
    """Leave out of training and validation, ready-made or not, what is near a question that is held out."""
    if not held_out:
        return
    index = held_out_index(held_out, params.near_duplicates or 1.0)
    learned = np.flatnonzero(~left & (groups.split != TEST))
    found = {
        position: f"{similarity:.0%} like {place}, which is held out"
        for position, (place, similarity) in near_held_out(index, pool, learned)
    }
    for position, place in asked_as_held_out(held_out, pool, learned):
        found.setdefault(position, f"the same question as {place}, which is held out")
    _leave_out(pool, params, found, "held_out", rejects, left)


def _leave_out_leaks(
    pool: Pool, params: DataParams, clashing: list[Clash], rejects: Rejects, left: NDArray[np.bool_]
) -> None:
    found: dict[int, str] = {}
    for clash in clashing:
        if not pool.table.ready[clash.position] and not left[clash.position]:
            kept = f"{pool[clash.protected].id} ({pool.place(clash.protected)})"
            found.setdefault(clash.position, f"{clash.detail} as {kept}, which is in another split")
    _leave_out(pool, params, found, "leak", rejects, left)


def _leave_out(
    pool: Pool,
    params: DataParams,
    details: Mapping[int, str],
    reason: str,
    rejects: Rejects,
    left: NDArray[np.bool_],
) -> None:
    """Leave out the examples at the positions in `details`, which says of each why."""
    sources = list(params.sources)
    for position, detail in details.items():
        left[position] = True
        source = sources[pool.table.source[position]]
        rejects.add(source, pool.place(position), pool[position].id, reason, detail)


def _require_no_leaks(pool: Pool, params: DataParams, share: float, leaks: list[Clash], size: int) -> None:
    if share <= params.max_leakage:
        return
    lines = [
        f"{pool.place(clash.position)} and {pool.place(clash.protected)}: {clash.detail}"
        for clash in leaks[:SHOWN_LEAKS]
    ]
    raise MedtuneError(
        f"the test leaks into training: {len(leaks)} of {size} test questions ({share:.1%}) have the same or "
        f"nearly the same one there, more than data.max_leakage ({params.max_leakage:g}) allows. The "
        "ready-made splits are kept as they are: mend them, or raise data.max_leakage and have it in the "
        "metrics. The first of them:\n  " + "\n  ".join(lines)
    )
