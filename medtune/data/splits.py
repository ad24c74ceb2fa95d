"""The questions of each split: as many of each kind as are asked for, in an order drawn by the seed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.core.errors import MedtuneError
from medtune.data.grouping import BALANCED, SPLITS, TRAIN, Groups
from medtune.data.params import DataParams, KindParams
from medtune.data.pool import Pool

Positions = NDArray[np.int64]
FAR = 0.2
"""Of a share: by so much another is far from it."""


def drawn_splits(
    pool: Pool, groups: Groups, left: NDArray[np.bool_], params: DataParams
) -> dict[str, Positions]:
    """The positions of each split's examples in their order.

    MedtuneError: a kind has too few of them for what is asked, a split has none; everything that does not fit
    is told at once, with what there is for every split.
    """
    kinds = _kinds(pool, params)
    splits: dict[str, Positions] = {}
    problems: list[str] = []
    for number, split in enumerate(SPLITS):
        members = _members(pool, groups, left, params, number)
        drawn = []
        for kind, sizes in kinds.items():
            of_kind = members[pool.table.numbers("kind")[members] == pool.kinds.index(kind)]
            wanted = getattr(sizes, split)
            if (wanted or 0) > len(of_kind) or (wanted is None and not len(of_kind) and params.kinds):
                problems.append(_too_few(kind, split, wanted, len(of_kind)))
            order = np.argsort(pool.table.numbers("draw")[of_kind], kind="stable")
            drawn.append(of_kind[order][: len(of_kind) if wanted is None else wanted])
        chosen = np.concatenate(drawn)
        splits[split] = chosen[np.argsort(pool.table.numbers("order")[chosen], kind="stable")]
        if not len(chosen) and not problems:
            problems.append(f"the split '{split}' is empty")
    if problems:
        raise MedtuneError(f"params.yaml: {'; '.join(problems)}. {_what_there_is(pool, groups, left, kinds)}")
    return splits


def overlaps(
    pool: Pool, groups: Groups, splits: Mapping[str, Positions], repeated: NDArray[np.bool_], stock: int
) -> dict[str, int]:
    """How many groups, questions and long answers stand in more than one split; stock sentences apart, which
    are those of more than `stock` questions without what is `repeated`."""
    placed = np.full(len(pool), -1, np.int8)
    for number, split in enumerate(SPLITS):
        placed[splits[split]] = number
    members = np.flatnonzero(placed >= 0)
    # Ready-made splits are placed one by one: that a group is in several is told by its name alone.
    group = pool.table.numbers("group")[members]
    named = group != 0
    owners, facts = pool.table.numbers("fact_owners"), pool.table.numbers("facts")
    stated = np.flatnonzero(placed[owners] >= 0) if len(owners) else np.zeros(0, np.int64)
    common, times = np.unique(facts[~repeated[owners]], return_counts=True)
    is_stock = np.isin(facts[stated], common[times > stock])
    return {
        "groups": _in_several(np.where(named, group, groups.leader[members]), placed[members]),
        "questions": _in_several(pool.table.numbers("question")[members], placed[members]),
        "long_answers": _in_several(facts[stated][~is_stock], placed[owners[stated][~is_stock]]),
        "stock_answers": len(np.unique(facts[stated][is_stock])),
    }


def uneven_shares(pool: Pool, groups: Groups, left: NDArray[np.bool_], params: DataParams) -> Iterator[str]:
    """What is to be said of a split whose share of the rows is far from the one asked for, and why it is."""
    table = pool.table
    is_loose, may_validate = table.numbers("ready") == 0, table.numbers("may_validate") == 1
    counted = (groups.leader >= 0) & (table.numbers("known_groups") == 0)
    for split, share, among in (
        ("validation", params.validation, counted & (is_loose | may_validate)),
        ("test", params.test, counted & is_loose & ~may_validate),
    ):
        rows = np.flatnonzero(among)
        drawn = rows[groups.split[rows] == SPLITS.index(split)]
        there, wanted = int((~left[drawn]).sum()), share * len(rows)
        by_chance = 3 * wanted**0.5 if len(rows) > BALANCED else 2
        if abs(there - wanted) <= max(by_chance, FAR * wanted):
            continue
        leaders, sizes = np.unique(groups.leader[rows], return_counts=True)
        lost, largest = int(left[drawn].sum()), int(sizes.max())
        if 2 * lost >= abs(there - wanted):
            why = f"{lost} rows of it were left out"
        else:
            first = pool.place(int(leaders[np.argmax(sizes)]))
            why = f"rows of a group stay together, and the largest, from {first} on, has {largest}"
        yield (
            f"{split} has {there} of {len(rows)} rows ({there / len(rows):.1%}), not the {share:.0%} of "
            f"data.{split}: {why}"
        )


def _in_several(keys: NDArray[Any], splits: NDArray[np.int8]) -> int:
    """How many keys occur with more than one split."""
    pairs = np.unique(np.stack([keys.astype(np.uint64), splits.astype(np.uint64)]), axis=1)
    return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())


def counts(pool: Pool, splits: Mapping[str, Positions]) -> dict[str, dict[str, int]]:
    """Examples by split and kind, kinds in alphabetic order."""
    kind = pool.table.numbers("kind")
    return {
        split: dict(
            sorted((pool.kinds[number], count) for number, count in Counter(kind[positions].tolist()).items())
        )
        for split, positions in splits.items()
    }


def _kinds(pool: Pool, params: DataParams) -> Mapping[str, KindParams]:
    if params.kinds is None:
        return {kind: KindParams() for kind in pool.kinds}
    unknown = [kind for kind in params.kinds if kind not in pool.kinds]
    missing = [kind for kind in pool.kinds if kind not in params.kinds]
    problems = [f"data.kinds has '{kind}', of which there is no example" for kind in unknown]
    problems += [f"data.kinds lacks '{kind}', of which there are examples" for kind in missing]
    if problems:
        raise MedtuneError(
            f"params.yaml: {'; '.join(problems)}. The kinds of the data: {', '.join(pool.kinds)}; without "
            "data.kinds all are taken"
        )
    return params.kinds


def _members(
    pool: Pool, groups: Groups, left: NDArray[np.bool_], params: DataParams, split: int
) -> Positions:
    members = np.flatnonzero(~left & (groups.split == split))
    if split != TRAIN:
        return members
    shares = np.array([source.share for source in params.sources.values()])
    table = pool.table
    return members[table.numbers("share")[members] < shares[table.numbers("source")[members]]]


def _too_few(kind: str, split: str, wanted: int | None, there: int) -> str:
    key = f"data.kinds.{kind}.{split}"
    if wanted is None:
        return f"of data.kinds.{kind} no example is in {split}: raise its share, or set {key} to 0"
    return f"{key} asks for {wanted} examples, of which {there} are there"


def _what_there_is(
    pool: Pool, groups: Groups, left: NDArray[np.bool_], kinds: Sequence[str] | Mapping[str, KindParams]
) -> str:
    kind = pool.table.numbers("kind")
    found = []
    for name in kinds:
        sizes = [
            int((~left & (groups.split == split) & (kind == pool.kinds.index(name))).sum())
            for split in range(len(SPLITS))
        ]
        found.append(
            f"{name} {', '.join(f'{size} {split}' for size, split in zip(sizes, SPLITS, strict=True))}"
        )
    return (
        f"There are: {'; '.join(found)}. data.validation and data.test are the shares of the groups; a kind "
        "without a number takes all there are"
    )
