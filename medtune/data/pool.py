"""The examples of all sources: on disk, with a few numbers of each in memory.

A million examples would take gigabytes as Python objects. In memory are only the numbers that decide whether
an example is a duplicate, where it goes and in which order it stands; the rest is read when it is needed.
"""

import json
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from medtune.core.examples import Example
from medtune.core.hashing import unit_hash

_MARKS = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M")
"""Vowels and tones of Hindi or Thai, among others, which `\\w` leaves out."""
_LETTER = rf"[\w{_MARKS}]"
_TOKEN = re.compile(
    rf"{_LETTER}+"
    r"|(?<!\S)[<>≤≥±+-]+(?=\d)|[<>≤≥±]=?(?=\s?\.?\d)"  # -5, (< 90 mmHg)
    rf"|(?<={_LETTER})[+-](?!{_LETTER})"  # HER2+
    r"|(?<=\d )[*/\u00d7\u00f7+-](?= \d)|(?<=\d)[*\u00d7\u00f7+](?=\d)"  # 5 - 3, but a range (5-3) has none
)
_SIGNS = "<>+-*/"
_SIGNED = re.compile(r"[<>*+]|-(?=\d)|\w-(?!\w)|\d [/-]")
_BLANKS = {code: " " for code in range(128) if not re.match(r"\w", chr(code))}

LONG_WORDS = 8
"""An answer of at least so many words states a fact by itself, a context of so many is a passage; shorter
ones recur by right."""
UNDECIDED = -1
NO_GROUP = "-"
"""Stands in for the group of an example until it is known."""


@dataclass(frozen=True)
class Origin:
    """Where an example comes from: its source by number, the place in words, a ready-made split or UNDECIDED.

    `known_groups`: the source says of each example to which group it belongs, and never grows.
    `may_validate`: it is of a ready-made training split beside which none for validation is given.
    """

    source: int
    place: str
    split: int = UNDECIDED
    known_groups: bool = False
    may_validate: bool = False


@dataclass
class Table:
    """Numbers of each example, by its position in the pool.

    `question`, `stem` (without choices), `answer`, `passage` and `group` are 64-bit digests, 0 for none: two
    that are equal by chance are one in 10^7 among a million rows. `facts` are those of long answers, each
    with the position in `fact_owners`; `earlier` are the stems of what earlier turns ask, with
    `earlier_owners`. Draws, of the split, the kind's number, the order and the source's
    share, are in [0, 1).
    """

    source: "array[int]" = field(default_factory=lambda: array("i"))
    kind: "array[int]" = field(default_factory=lambda: array("i"))
    split: "array[int]" = field(default_factory=lambda: array("b"))
    ready: "array[int]" = field(default_factory=lambda: array("b"))
    known_groups: "array[int]" = field(default_factory=lambda: array("b"))
    may_validate: "array[int]" = field(default_factory=lambda: array("b"))
    is_open: "array[int]" = field(default_factory=lambda: array("b"))
    question: "array[int]" = field(default_factory=lambda: array("Q"))
    stem: "array[int]" = field(default_factory=lambda: array("Q"))
    answer: "array[int]" = field(default_factory=lambda: array("Q"))
    passage: "array[int]" = field(default_factory=lambda: array("Q"))
    group: "array[int]" = field(default_factory=lambda: array("Q"))
    facts: "array[int]" = field(default_factory=lambda: array("Q"))
    fact_owners: "array[int]" = field(default_factory=lambda: array("q"))
    earlier: "array[int]" = field(default_factory=lambda: array("Q"))
    earlier_owners: "array[int]" = field(default_factory=lambda: array("q"))
    split_draw: "array[float]" = field(default_factory=lambda: array("d"))
    draw: "array[float]" = field(default_factory=lambda: array("d"))
    order: "array[float]" = field(default_factory=lambda: array("d"))
    share: "array[float]" = field(default_factory=lambda: array("d"))

    def numbers(self, name: str) -> NDArray[Any]:
        """One column as an array; what changes in it is changed here."""
        return np.frombuffer(getattr(self, name), dtype=getattr(self, name).typecode)


class Pool:
    """Examples in the order of reading. Each has a position, from 0."""

    def __init__(self, seed: int) -> None:
        self.table = Table()
        self.kinds: list[str] = []
        self._kind_numbers: dict[str, int] = {}
        self._seed = seed
        self._file = TemporaryFile()  # noqa: SIM115 - gone when the pool is
        self._ends = array("q", [0])
        self._at_end = True

    def append(self, example: Example, origin: Origin) -> int:
        """Keep an example; returns its position. Without a group of its own it has the group NO_GROUP."""
        line = f"[{json.dumps(origin.place)},{example.model_dump_json(exclude_none=True)}]".encode()
        if not self._at_end:
            self._file.seek(self._ends[-1])
            self._at_end = True
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))
        self._note(example, origin)
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, position: int) -> Example:
        return Example.model_validate(self._record(position)[1])

    def place(self, position: int) -> str:
        """Where an example stands in its source, in words."""
        return str(self._record(position)[0])

    def _record(self, position: int) -> Any:
        start, end = self._ends[position], self._ends[position + 1]
        self._file.seek(start)
        self._at_end = False
        return json.loads(self._file.read(end - start))

    def _note(self, example: Example, origin: Origin) -> None:
        table, position = self.table, len(self) - 1
        table.source.append(origin.source)
        table.kind.append(self._kind_numbers.setdefault(example.kind, len(self._kind_numbers)))
        if len(self._kind_numbers) > len(self.kinds):
            self.kinds.append(example.kind)
        table.split.append(origin.split)
        table.ready.append(origin.split != UNDECIDED)
        table.known_groups.append(origin.known_groups)
        table.may_validate.append(origin.may_validate)
        table.is_open.append(example.choices is None)
        # Each text is made normal once: that is what takes the time.
        stem, passage = stem_of(example), _passage_of(example)
        answers = list(map(normalise, example.right_answers))
        stem_key, passage_key = digest(stem), digest(passage) if passage else 0
        choices = list(map(normalise, sorted(example.choices or [])))
        table.stem.append(stem_key)
        table.question.append(digest(" ".join([stem, *choices])) if choices else stem_key)
        table.answer.append(digest("\n".join(sorted(answers))))
        table.passage.append(passage_key)
        table.group.append(0 if example.group == NO_GROUP else digest(example.group))
        for fact in filter(_is_fact, answers):
            table.facts.append(digest(fact))
            table.fact_owners.append(position)
        for asked in earlier_stems(example):
            table.earlier.append(digest(asked))
            table.earlier_owners.append(position)
        group = _name_of(passage_key or stem_key) if example.group == NO_GROUP else example.group
        table.split_draw.append(unit_hash(self._seed, f"split:{group}"))
        table.draw.append(unit_hash(self._seed, f"draw:{example.id}"))
        table.order.append(unit_hash(self._seed, f"order:{example.id}"))
        table.share.append(unit_hash(self._seed, f"share:{example.id}"))


class Selection(Sequence[Example]):
    """Some examples of a pool in an order of their own, each read when it is looked at."""

    def __init__(self, pool: Pool, positions: Iterable[int], leaders: NDArray[np.int64]) -> None:
        self.positions = np.fromiter(positions, np.int64)
        self._pool, self._leaders = pool, leaders

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Selection": ...
    def __getitem__(self, index: int | slice) -> "Example | Selection":
        if isinstance(index, slice):
            return Selection(self._pool, self.positions[index], self._leaders)
        position = int(self.positions[index])
        example, leader = self._pool[position], int(self._leaders[position])
        group = group_name(example if leader == position else self._pool[leader])
        return example.model_copy(update={"group": group})

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))


def group_name(example: Example) -> str:
    """What a group is called after the example that began it: as the source says, else by its words."""
    if example.group != NO_GROUP:
        return example.group
    return _name_of(digest(_passage_of(example) or stem_of(example)))


def _name_of(key: int) -> str:
    return f"{key:016x}"


def _passage_of(example: Example) -> str:
    """The context, if it is long enough to be a passage."""
    words = normalise(example.context) if example.context else ""
    return words if words.count(" ") >= LONG_WORDS - 1 else ""


def digest(text: str) -> int:
    """64 bits of a text's hash; never 0."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") or 1


def stem_of(example: Example) -> str:
    """What is asked, without choices: with another context or other turns the same words are another
    question."""
    turns = [turn.content for turn in example.messages or []]
    return normalise(" ".join([*turns, example.context or "", example.question]))


def earlier_stems(example: Example) -> list[str]:
    """What the turns before the question ask, each with those before it: their answers are learned too."""
    turns = example.earlier_turns
    return [normalise(" ".join(turns[: number + 1])) for number in range(0, len(turns), 2)]


def question_of(example: Example) -> str:
    """What is asked, with its choices in whatever order."""
    return normalise(" ".join([stem_of(example), *sorted(example.choices or [])]))


def facts_of(example: Example) -> list[str]:
    """The right answers that are long enough to state a fact by themselves."""
    return list(filter(_is_fact, map(normalise, example.right_answers)))


def _is_fact(words: str) -> bool:
    return len(words.split()) >= LONG_WORDS


def normalise(text: str) -> str:
    """Lower case words and signs that change what is said, single spaces, no leading article; symbols if all
    is symbols.

    Scoring has its own: mending a metric must not move a question from one split to another.
    """
    text = text.lower()
    tokens = _plain_tokens(text) or _TOKEN.findall(text)
    if len(tokens) > 1 and tokens[0] in ("a", "an", "the"):
        del tokens[0]
    return " ".join(tokens) or text.strip()


def _plain_tokens(text: str) -> list[str]:
    """What _TOKEN finds in a text without signs or foreign letters, in a quarter of the time; else none."""
    if not text.isascii() or (any(map(text.__contains__, _SIGNS)) and _SIGNED.search(text)):
        return []
    return text.translate(_BLANKS).split()
