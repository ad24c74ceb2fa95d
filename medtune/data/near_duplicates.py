"""Which of many texts is nearly the same as another, by exact similarity: nothing is estimated or missed.

    index = NearDuplicates(threshold=0.8)
    index.add_all((example.id, example.question) for example in test)
    index.find("Does aspirin cause bleeding?")  # ("test-17", 0.92), or None

The similarity of two texts is the Jaccard similarity of their sets of shingles (medtune/data/shingles.py):
those that both have, divided by those that either has. A text without words is near nothing. Of n different
words, one that is replaced leaves (n - 1) / (n + 5), one that is added n / (n + 5). At 0.8, texts of fewer
than 20 words are therefore near only if they have the same words in the same order: a negation, a number or
"type 2" is a difference. In a long text single words are none, nor is a sentence that is a tenth of it.

Candidates come from prefix filtering (Chaudhuri, Ganti and Kaushik, ICDE 2006; Xiao and others, WWW 2008).
Put all shingles in one order, whichever. Two sets of a and b shingles with a similarity of at least t share
at least s = t / (1 + t) * (a + b). So the first that they share is among the first a - s + 1 of the one and
the first b - s + 1 of the other. Here the rare ones come first: what all questions of a template have in
common makes them no candidates. MinHash with bands would take a thousand for each question of such a file,
however the bands are chosen, and miss some.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from medtune.core.errors import MedtuneError
from medtune.data.pace import with_pace
from medtune.data.shingles import (
    MOST_TEXTS,
    NONE,
    Hashes,
    Numbers,
    Sets,
    WordHashes,
    runs,
    sets_of,
    spread,
    starts_of,
)

Name = str | int
Match = tuple[Name, float]
Pairs = tuple[Numbers, Numbers, npt.NDArray[np.float64]]
Allowed = Callable[[Numbers, Numbers], npt.NDArray[np.bool_]]
T = TypeVar("T")

_TEXTS_AT_ONCE = 4096
_PAIRS_AT_ONCE = 2**15
_MOST_COUNT_BITS = 22
_ROUNDING = 1e-6
"""What a product with the threshold may be off by: 0.8 * 5 shingles are to be 4."""


class NearDuplicates:
    """An index of texts by name. Add all, then find: a search after an addition sorts the whole anew.

    Of a text it holds the name, 8 bytes a shingle, 14 more for about every fourth, up to 2 for a table, and
    28: less than 590 bytes for 40 words. Of texts with the same shingles it holds the one with the smallest
    name. The threshold is a Jaccard similarity; 1.0 asks for the same shingles. Names are all texts or all
    numbers. Errors: MedtuneError for a threshold that is not in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise MedtuneError(f"the threshold of near duplicates is {threshold}; accepted: above 0, up to 1")
        self._threshold = threshold
        self._hash_of = WordHashes()
        self._names: list[Name] = []
        self._sets = Sets.joined([])
        self._set_of = np.zeros(0, np.int64)
        self._added: list[Sets] = []
        self._prefixes = _Prefixes(self._sets, threshold)

    def add(self, name: Name, text: str) -> None:
        """Add one text; `add_all` is many times as fast for many."""
        self.add_all([(name, text)])

    def add_all(self, texts: Iterable[tuple[Name, str]]) -> None:
        """Add texts with their names. A name may have several texts."""
        for part in _parts(texts):
            self._names += [name for name, _ in part]
            self._added.append(sets_of([text for _, text in part], self._hash_of))

    def find(self, text: str) -> Match | None:
        """The name of the most similar text at or above the threshold, and its similarity.

        Of equally similar ones it is the smallest name.
        """
        return next(self.find_all([text]))

    def find_all(self, texts: Iterable[str]) -> Iterator[Match | None]:
        """What `find` says to each text, in their order; many times as fast for many."""
        self._sort()
        for part in _parts(texts):
            found: list[Match | None] = [None] * len(part)
            for left, right, similarity in self._pairs(sets_of(part, self._hash_of)):
                for pair in nearest(left, right, similarity).tolist():
                    found[left[pair]] = self._names[right[pair]], float(similarity[pair])
            yield from found

    def pairs(self, numbers: Numbers, allowed: Allowed) -> Iterator[Pairs]:
        """Of the texts with these numbers, which count from 0 as they were added: the sets near each.

        Yields numbers of texts, numbers of sets (see `set_of` and `names`) and similarities, of a text all at
        once. A text is near its own set. `allowed` gets the former two and says which pairs are asked for.
        """
        self._sort()
        starts = range(0, len(numbers), _TEXTS_AT_ONCE)
        for start in with_pace(starts, "comparing near duplicates", at_once=_TEXTS_AT_ONCE):
            part = numbers[start : start + _TEXTS_AT_ONCE]

            def asked_for(left: Numbers, near: Numbers, part: Numbers = part) -> npt.NDArray[np.bool_]:
                return allowed(part[left], near)

            for left, right, similarity in self._pairs(self._sets.take(self._set_of[part]), asked_for):
                yield part[left], right, similarity

    @property
    def set_of(self) -> Numbers:
        """The number of each text's set, or NONE if the text has no words; texts in the order of adding."""
        self._sort()
        return self._set_of

    @property
    def names(self) -> npt.NDArray[Any]:
        """The smallest name of each set."""
        self._sort()
        return np.array(self._names)

    @property
    def nbytes(self) -> int:
        """The bytes that the index holds beside the names, once something was sought."""
        return self._sets.hashes.nbytes + self._sets.starts.nbytes + self._prefixes.nbytes

    def _sort(self) -> None:
        """Put the texts in the order of their names, and of those with the same shingles keep the first."""
        if not self._added:
            return
        parts, before = [self._sets, *self._added], self._set_of
        self._sets, self._added = Sets.joined([]), []
        sizes = np.concatenate([part.sizes for part in parts])
        digests = np.concatenate([part.digests() for part in parts])
        order = np.array(sorted(range(len(sizes)), key=self._names.__getitem__), dtype=np.int64)
        _, first, same = np.unique(digests[order], return_index=True, return_inverse=True)
        is_kept = np.zeros(len(sizes), bool)
        is_kept[first] = sizes[order[first]] > 0
        kept = order[is_kept]

        place = np.where(is_kept, np.cumsum(is_kept) - 1, NONE)
        set_of = np.empty(len(sizes), np.int64)
        set_of[order] = place[first][same]
        added = set_of[len(parts[0]) :]
        self._set_of = np.concatenate([np.where(before == NONE, NONE, set_of[before]), added])
        self._names = [self._names[number] for number in kept]
        # Those that are held are joined first, which most often leaves nothing to be put in order.
        self._sets = Sets.joined(parts, np.isin(np.arange(len(sizes)), kept))
        if (np.diff(kept) < 0).any():
            self._sets = self._sets.take(np.argsort(np.argsort(kept)))
        self._prefixes = _Prefixes(self._sets, self._threshold)

    def _pairs(self, asked: Sets, allowed: Allowed | None = None) -> Iterator[Pairs]:
        for left, right in self._prefixes.candidates(asked):
            if allowed is not None:
                asked_for = np.flatnonzero(allowed(left, right))
                left, right = left[asked_for], right[asked_for]
            similarity = _similarities(asked, left, self._sets, right)
            near = np.flatnonzero(similarity >= self._threshold)
            yield left[near], right[near], similarity[near]


def nearest(left: Numbers, right: Numbers, similarity: npt.NDArray[np.float64]) -> Numbers:
    """Which pairs are the most similar of their left one; of equally similar ones the first on the right."""
    order = np.lexsort((right, -similarity, left))
    return order[np.unique(left[order], return_index=True)[1]]


class _Prefixes:
    """The rarest shingles of each set: so many that whatever is near the set has one of them."""

    def __init__(self, sets: Sets, threshold: float) -> None:
        self._threshold = threshold
        self._sizes = sets.sizes.astype(np.uint32)
        parts = list(sets.parts(MOST_TEXTS))
        self._parities = np.concatenate([np.zeros(0, np.uint64), *(part.parities() for part in parts)])
        # How often shingles occur: those whose first bits are the same are counted together, which changes
        # how many candidates there are and nothing else.
        self._unused_bits = np.uint64(64 - min((len(sets.hashes) | 2).bit_length() - 1, _MOST_COUNT_BITS))
        counts = np.zeros(1 << (64 - int(self._unused_bits)), np.int64)
        for part in parts:
            counts += np.bincount(self._slots(part), minlength=len(counts))
        self._counts = np.minimum(counts, 2**16 - 1).astype(np.uint16)
        found: list[tuple[Hashes, npt.NDArray[np.uint32], npt.NDArray[np.uint16]]] = []
        for number, part in enumerate(parts):
            hashes, rows, places = self._rarest(part)
            # A place that is too large for 16 bits becomes smaller: more candidates, and none is missed.
            places = np.minimum(places, 2**16 - 1)
            found.append((hashes, (rows + number * MOST_TEXTS).astype(np.uint32), places.astype(np.uint16)))
        hashes = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in found)])
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._rows = np.concatenate([np.zeros(0, np.uint32), *(part[1] for part in found)])[order]
        self._places = np.concatenate([np.zeros(0, np.uint16), *(part[2] for part in found)])[order]

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in vars(self).values() if isinstance(array, np.ndarray))

    def candidates(self, asked: Sets) -> Iterator[tuple[Numbers, Numbers]]:
        """Pairs of numbers, of a set that is asked for and one of these; all pairs of the former at once."""
        rows, places, first, counts = self._found(asked)
        parities = asked.parities()
        block = np.cumsum(np.bincount(rows, counts, minlength=len(asked)))[rows] // _PAIRS_AT_ONCE
        for start, stop in pairwise([*np.unique(block, return_index=True)[1].tolist(), len(rows)]):
            mine = np.repeat(np.arange(start, stop), counts[start:stop])
            theirs = runs(first[start:stop], counts[start:stop])
            left, right = rows[mine], self._rows[theirs]
            sizes = asked.sizes[left], self._sizes[right].astype(np.int64)
            shared = _least(self._threshold / (1 + self._threshold), sizes[0] + sizes[1])
            possible = (places[mine] <= sizes[0] - shared) & (self._places[theirs] <= sizes[1] - shared)
            # Each shingle that only one of two sets has changes one bit, so at least so many are different.
            different = np.bitwise_count(parities[left] ^ self._parities[right])
            possible &= different <= sizes[0] + sizes[1] - 2 * shared
            pairs = np.unique(left[possible] * len(self._sizes) + right[possible])
            yield pairs // len(self._sizes), pairs % len(self._sizes)

    def _found(self, asked: Sets) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Of each hash of a prefix that these have too: its set, its place, the first of these, how many."""
        hashes, rows, places = self._rarest(asked)
        # In this order each search begins where the one before it ended: a fifth of the time.
        order = np.argsort(hashes)
        first, counts = np.empty_like(rows), np.zeros_like(rows)
        first[order] = np.searchsorted(self._hashes, hashes[order])
        last = len(self._hashes) - 1
        known = order[self._hashes[np.minimum(first[order], last)] == hashes[order] if last >= 0 else []]
        counts[known] = np.searchsorted(self._hashes, hashes[known], "right") - first[known]
        found = np.flatnonzero(counts)
        return rows[found], places[found], first[found], counts[found]

    def _rarest(self, sets: Sets) -> tuple[npt.NDArray[np.uint64], Numbers, Numbers]:
        """The prefixes, one behind the other: hashes, the set that each is of, and its place there."""
        # Hashes are in order within a set, and stable sorts keep them so: an order that is one for all.
        order = np.argsort(self._counts[self._slots(sets)], kind="stable")
        order = order[np.argsort(sets.rows.astype(np.uint16)[order], kind="stable")]
        lengths = np.minimum(sets.sizes - _least(self._threshold, sets.sizes) + 1, sets.sizes)
        chosen = runs(sets.starts[:-1], lengths)
        rows = np.repeat(np.arange(len(sets)), lengths)
        return sets.hashes[order[chosen]], rows, chosen - sets.starts[rows]

    def _slots(self, sets: Sets) -> Numbers:
        return (sets.hashes >> self._unused_bits).astype(np.int64)


def _similarities(left: Sets, lefts: Numbers, right: Sets, rights: Numbers) -> npt.NDArray[np.float64]:
    """The Jaccard similarity of each pair of a set on the left and one on the right, by their numbers."""
    numbers, lefts = np.unique(lefts, return_inverse=True)
    left = left.take(numbers)
    # With another number added for each set, the hashes of all sets on the left can be sought in one array.
    salts = spread(np.arange(1, len(left) + 1, dtype=np.uint64))
    known = np.sort(left.hashes + np.repeat(salts, left.sizes))
    sizes = right.sizes[rights]
    wanted = right.hashes[runs(right.starts[rights], sizes)] + np.repeat(salts[lefts], sizes)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    hits = np.concatenate([np.zeros(1, np.int64), np.cumsum(known[places] == wanted)])
    shared = np.diff(hits[starts_of(sizes)])
    return shared / (left.sizes[lefts] + sizes - shared)


def _least(share: float, sizes: Numbers) -> Numbers:
    return np.ceil(share * sizes - _ROUNDING).astype(np.int64)


def _parts(values: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(values)
    while part := list(islice(iterator, _TEXTS_AT_ONCE)):
        yield part
