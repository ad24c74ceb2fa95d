"""From sources to splits, step by step: read, without repeats, grouped, without leaks, drawn."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.core.errors import MedtuneError
from medtune.data.faults import Rejects
from medtune.data.grouping import Groups, placed_groups
from medtune.data.leaks import Clash, clashes, leakage, repeats
from medtune.data.params import DataParams
from medtune.data.pool import Pool, Selection
from medtune.data.sources import read_sources
from medtune.data.splits import Positions, counts, drawn_splits, overlaps

SHOWN_LEAKS = 10


@dataclass(frozen=True)
class Prepared:
    """What came of the sources: positions in the pool by split, what was left out, and what there is to say."""

    pool: Pool
    groups: Groups
    positions: dict[str, Positions]
    rejects: Rejects
    leakage: float
    params: DataParams
    notes: list[str]

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
        """What metrics/data.json holds: how many there are, of which source, what overlaps, what was left out."""
        source = self.pool.table.numbers("source")
        return {
            "examples": self.counts(),
            "sources": {
                name: {split: int((source[found] == number).sum()) for split, found in self.positions.items()}
                for number, name in enumerate(self.params.sources)
            },
            "left_out": self.rejects.counts(self.params.sources),
            "overlaps": overlaps(self.pool, self.groups, self.positions, self.params.stock_answers),
            "leakage": self.leakage,
        }


def prepare(params: DataParams) -> Prepared:
    """Read the sources and split them.

    MedtuneError: a source cannot be read, rows are faulty, sizes cannot be filled, or more leaks from training
    into the test than `data.max_leakage` allows.
    """
    pool, rejects = Pool(params.seed), Rejects()
    notes = read_sources(params, pool, rejects)
    return split(pool, params, rejects, notes)


def split(pool: Pool, params: DataParams, rejects: Rejects, notes: list[str]) -> Prepared:
    """Split what was read; errors as for `prepare`."""
    left = np.zeros(len(pool), bool)
    repeated = repeats(pool)
    _leave_out(pool, params, repeated.conflicting, "conflicting_answers", rejects, left)
    rejects.refuse(params.on_error)
    _leave_out(pool, params, np.setdiff1d(repeated.same, repeated.conflicting), "duplicate", rejects, left)
    near = np.full(len(pool), -1, np.int64)
    # Contradictions too, or one that is added would change how many rows were placed before others.
    groups = placed_groups(pool, params, repeated.same, near)
    found = list(clashes(pool, groups, left, params))
    _leave_out_leaks(pool, params, found, rejects, left)
    positions = drawn_splits(pool, groups, left, params)
    share, leaks = leakage(pool, groups, positions, found)
    _require_no_leaks(pool, params, share, leaks, len(positions["test"]))
    return Prepared(pool, groups, positions, rejects, share, params, notes)


def _leave_out(
    pool: Pool,
    params: DataParams,
    positions: Iterable[int],
    reason: str,
    rejects: Rejects,
    left: NDArray[np.bool_],
) -> None:
    details = {
        "duplicate": "the same question and answer as an earlier row",
        "conflicting_answers": "its question has another answer in another row",
    }
    sources = list(params.sources)
    for position in map(int, positions):
        left[position] = True
        example = pool[position]
        source = sources[pool.table.source[position]]
        rejects.add(source, pool.place(position), example.id, reason, details[reason])


def _leave_out_leaks(
    pool: Pool, params: DataParams, found: list[Clash], rejects: Rejects, left: NDArray[np.bool_]
) -> None:
    sources = list(params.sources)
    for clash in found:
        if pool.table.ready[clash.position] or left[clash.position]:
            continue
        left[clash.position] = True
        rejects.add(
            sources[pool.table.source[clash.position]],
            pool.place(clash.position),
            pool[clash.position].id,
            "leak",
            f"{clash.detail} as {pool[clash.protected].id} ({pool.place(clash.protected)}), which is in another split",
        )


def _require_no_leaks(pool: Pool, params: DataParams, share: float, leaks: list[Clash], size: int) -> None:
    if share <= params.max_leakage:
        return
    lines = [
        f"{pool.place(clash.position)} and {pool.place(clash.protected)}: {clash.detail}"
        for clash in leaks[:SHOWN_LEAKS]
    ]
    raise MedtuneError(
        f"the test leaks into training: {len(leaks)} of {size} test questions ({share:.1%}) have the same or nearly "
        f"the same one there, more than data.max_leakage ({params.max_leakage:g}) allows. The ready-made splits are "
        "kept as they are: mend them, or raise data.max_leakage and have it in the metrics. The first of them:\n  "
        + "\n  ".join(lines)
    )
