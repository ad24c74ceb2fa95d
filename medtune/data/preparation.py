"""From sources to splits, step by step: read, without repeats, grouped, without leaks, drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.data.faults import Rejects
from medtune.data.grouping import TEST, Groups, placed_groups
from medtune.data.leaks import Clash, Repeats, clashes, leakage, repeats
from medtune.data.nearness import Nearness, held_out_index, near_held_out
from medtune.data.params import DataParams
from medtune.data.pool import Pool, Selection
from medtune.data.sources import read_held_out, read_sources
from medtune.data.splits import Positions, counts, drawn_splits, overlaps

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
            "overlaps": overlaps(self.pool, self.groups, self.positions, self.params.stock_answers),
            "leakage": self.leakage,
        }


def prepare(params: DataParams) -> Prepared:
    """Read the sources and split them.

    MedtuneError: a source cannot be read, rows are faulty, sizes cannot be filled, or more leaks from
    training into the test than `data.max_leakage` allows.
    """
    pool, rejects = Pool(params.seed), Rejects()
    notes = read_sources(params, pool, rejects)
    return split(pool, params, rejects, notes, read_held_out(params))


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
    _leave_out(pool, params, repeated.conflicting, "conflicting_answers", rejects, left)
    rejects.refuse(params.on_error)
    _leave_out(pool, params, np.setdiff1d(repeated.same, repeated.conflicting), "duplicate", rejects, left)
    nearness = _nearness(pool, params, repeated)
    near = nearness.earlier() if nearness else np.full(len(pool), -1, np.int64)
    # Contradictions too, or one that is added would change how many rows were placed before others.
    groups = placed_groups(pool, params, repeated.same, near)
    found = list(clashes(pool, groups, left, params))
    if nearness:
        found += nearness.clashes(groups, left)
    _leave_out_held_out(pool, params, groups, held_out, rejects, left)
    _leave_out_leaks(pool, params, found, rejects, left)
    positions = drawn_splits(pool, groups, left, params)
    share, leaks = leakage(groups, positions, found)
    _require_no_leaks(pool, params, share, leaks, len(positions["test"]))
    return Prepared(pool, groups, positions, rejects, share, params, notes)


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
    sources = list(params.sources)
    for position, (place, similarity) in near_held_out(index, pool, learned):
        left[position] = True
        detail = f"{similarity:.0%} like {place}, which is held out"
        source = sources[pool.table.source[position]]
        rejects.add(source, pool.place(position), pool[position].id, "held_out", detail)


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
            f"{clash.detail} as {pool[clash.protected].id} ({pool.place(clash.protected)}), which is in "
            f"another split",
        )


def _require_no_leaks(pool: Pool, params: DataParams, share: float, leaks: list[Clash], size: int) -> None:
    if share <= params.max_leakage:
        return
    lines = [
        f"{pool.place(clash.position)} and {pool.place(clash.protected)}: {clash.detail}"
        for clash in leaks[:SHOWN_LEAKS]
    ]
    raise MedtuneError(
        f"the test leaks into training: {len(leaks)} of {size} test questions ({share:.1%}) have the "
        f"same or nearly "
        f"the same one there, more than data.max_leakage ({params.max_leakage:g}) allows. The ready-made "
        f"splits are "
        "kept as they are: mend them, or raise data.max_leakage and have it in the metrics. The first of "
        "them:\n  " + "\n  ".join(lines)
    )
