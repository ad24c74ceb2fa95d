"""Texts as sets of shingles, the runs of three words in them.

Words are those of the text after NFKC and case folding, without invisible characters and punctuation. Of
the latter stay the signs of numbers ("-5", "<5") and those that end a word ("HER2+"). Scripts that put no
spaces between words, such as Chinese and Thai, are read character by character. Two empty words stand before
the text and two behind it: n words have n + 2 shingles, and a text without words has none.

A shingle is a hash of 64 bits, the same in every process. In a million texts of 40 words, some two of all
their shingles have the same one with a probability of 0.00005.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import numpy as np
import numpy.typing as npt
import regex

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

MOST_TEXTS = 2**16
"""So many texts can be read at once."""
NONE = -1
"""The number of the empty set."""

_WORDS_KEPT = 2**18
_TWO_EMPTY_WORDS = bytes(16)
_FACTORS = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)))
"""Odd, with bits everywhere."""

_SIGN = r"[<>±]=?(?=\s?\.?\d)|(?<![\w)\]%.])[-+](?=\.?\d)|(?<=\w)[-+](?!\w)"
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
_ASCII_SIGNS = str.maketrans(
    {"\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2212": "-", "\u2264": "<=", "\u2265": ">="}
)
_WORD = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+|{_SIGN}", regex.VERSION1
)
_WORD_OF_ASCII = re.compile(rf"[a-z0-9]+|{_SIGN}")


class WordHashes(dict[str, bytes]):
    """Hashes of 8 bytes by word; forgets all when there are too many."""

    def __missing__(self, word: str) -> bytes:
        if len(self) >= _WORDS_KEPT:
            self.clear()
        self[word] = hashed = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return hashed


@dataclass(frozen=True)
class Sets:
    """Sets one behind the other: `hashes[starts[i] : starts[i + 1]]` is the i-th, without repeats, sorted."""

    hashes: Hashes
    starts: Numbers

    @classmethod
    def joined(cls, parts: list[Self], chosen: npt.NDArray[np.bool_] | None = None) -> Self:
        """Those that are chosen of the sets of several, which are taken from the list one by one."""
        sizes = np.concatenate([np.zeros(0, np.int64), *(part.sizes for part in parts)])
        chosen = np.ones(len(sizes), bool) if chosen is None else chosen
        starts = starts_of(sizes[chosen])
        hashes = np.empty(starts[-1], np.uint64)
        at = begin = 0
        while parts:
            part = parts.pop(0)
            taken = part.take(np.flatnonzero(chosen[begin : begin + len(part)])).hashes
            hashes[at : at + len(taken)] = taken
            at, begin = at + len(taken), begin + len(part)
        return cls(hashes, starts)

    def parts(self, size: int) -> Iterator[Self]:
        """The sets one behind the other, so many at once."""
        for start in range(0, len(self), size):
            starts = self.starts[start : start + size + 1]
            yield type(self)(self.hashes[starts[0] : starts[-1]], starts - starts[0])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Numbers:
        """How many shingles each set has."""
        return np.diff(self.starts)

    @property
    def rows(self) -> Numbers:
        """The number of the set that each hash is of."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def take(self, numbers: Numbers) -> Self:
        """The sets with these numbers, in this order; NONE is the empty one."""
        sizes = np.where(numbers == NONE, 0, self.sizes[numbers]) if len(self) else np.zeros_like(numbers)
        return type(self)(self.hashes[runs(self.starts[numbers], sizes)], starts_of(sizes))

    def digests(self) -> Hashes:
        """A number for each set: the same for the same, and for others another one, as far as 64 bits can."""
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(self.hashes, dtype=np.uint64)])
        return np.diff(sums[self.starts])

    def parities(self) -> Hashes:
        """Of each set 64 bits: whether it has an odd number of the shingles that count for the bit."""
        bits = np.left_shift(np.uint64(1), self.hashes & np.uint64(63))
        marks = np.concatenate([np.zeros(1, np.uint64), np.bitwise_xor.accumulate(bits)])
        return marks[self.starts[1:]] ^ marks[self.starts[:-1]]


def sets_of(texts: Sequence[str], hash_of: WordHashes) -> Sets:
    """The set of shingles of each text, of at most 65,536."""
    sizes, parts = [], []
    for text in texts:
        found = words(text)
        sizes.append(len(found) + 2 if found else 0)
        if found:
            parts.append(_TWO_EMPTY_WORDS)
            parts += [hash_of[word] for word in found]
    # The two empty words behind a text are those before the next one, and behind the last there are these.
    parts.append(_TWO_EMPTY_WORDS)
    return _without_repeats(_shingles(b"".join(parts)), np.array(sizes, dtype=np.int64))


def words(text: str) -> list[str]:
    """The words of a text, as its shingles have them."""
    if text.isascii():
        # `re` is faster than `regex`; of ASCII both find the same.
        return _WORD_OF_ASCII.findall(text.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall(_INVISIBLE.sub("", folded).translate(_ASCII_SIGNS))


def spread(hashes: Hashes) -> Hashes:
    """Hashes of hashes, so that sums of the new ones say nothing about sums of the old ones."""
    hashes = (hashes ^ (hashes >> np.uint64(32))) * _FACTORS[0]
    return hashes ^ (hashes >> np.uint64(29))


def starts_of(sizes: Numbers) -> Numbers:
    """Where each of several runs begins if one stands behind the other, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def runs(starts: Numbers, sizes: Numbers) -> Numbers:
    """The numbers from each start on, as many as its size, one run behind the other."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - ends + sizes, sizes) + np.arange(ends[-1] if len(ends) else 0)


def _shingles(word_hashes: bytes) -> Hashes:
    hashes = np.frombuffer(word_hashes, dtype="<u8").astype(np.uint64)
    first, second, third = _FACTORS
    return spread(hashes[:-2] * first + hashes[1:-1] * second + hashes[2:] * third)


def _without_repeats(hashes: Hashes, sizes: Numbers) -> Sets:
    order = np.argsort(hashes)
    # NumPy sorts numbers of 16 bits by radix if the sort is to be stable.
    rows = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint16)[order]
    by_row = np.argsort(rows, kind="stable")
    hashes, rows = hashes[order][by_row], rows[by_row]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    return Sets(hashes[new], starts_of(np.bincount(rows[new], minlength=len(sizes))))
