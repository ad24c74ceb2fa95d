"""What needs no model: the answers of lookups in the training questions, to be held against a model's.

- most_frequent: the most frequent training answer of the kind; of a question's choices, if it has any
- nearest: the answer of the training question of the kind that is nearest
- overlap: the choice of which most stands in the question; for questions with choices alone

Near is measured by character n-grams: the Jaccard index of the sets of the two questions' n-grams, 0 (none
in common) to 1 (Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900). N-grams that most questions of the
kind have are their common wording ("Which organ systems does ... affect?") and do not count.
"""

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import regex
from scipy.sparse import csr_array

from medtune.core.answers import AnswerText
from medtune.core.examples import Example
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.wording import members, words

LOOKUPS = ("most_frequent", "nearest", "overlap")
LENGTH = 4
"""Characters of an n-gram."""
WORDING = 0.5
"""An n-gram that a greater share of a kind's training questions has is their wording..."""
SMALLEST_SAMPLE = 10
"""... if there are at least so many, or each would be nothing but wording."""
ROWS = 64
"""Test questions compared at once."""
_WORDS = regex.compile(r"[\p{L}\p{M}\p{N}]+")


@dataclass(frozen=True)
class Relative:
    """The training question that is nearest to a test question, and how near, in [0, 1]."""

    id: str
    question: str
    similarity: float


@dataclass(frozen=True)
class Looked:
    """What the training questions say to test questions.

    `relatives` are in the order of these, None where training has no question of the kind. `answers` holds
    those of each lookup by the ids of the questions that it has an answer for.
    """

    relatives: list[Relative | None]
    answers: Mapping[str, Mapping[str, AnswerText]]


def look_up(examples: Sequence[Example], training: Sequence[Example], params: EvaluateParams) -> Looked:
    """The nearest training question to each example, and the answer of each lookup."""
    relatives: dict[str, Relative] = {}
    texts: dict[str, dict[str, str]] = {lookup: {} for lookup in LOOKUPS}
    for kind in dict.fromkeys(example.kind for example in examples):
        asked = [example for example in examples if example.kind == kind]
        known = [example for example in training if example.kind == kind]
        texts["overlap"] |= {example.id: _overlapping(example) for example in asked if example.choices}
        if not known:
            continue
        texts["most_frequent"] |= _most_frequent(asked, known, is_set=kind in params.set_kinds)
        for example, similarities in zip(asked, _similarities(asked, known), strict=True):
            closest = known[int(similarities.argmax())]
            relatives[example.id] = Relative(closest.id, closest.question, float(similarities.max()))
            texts["nearest"][example.id] = _nearest_answer(example, known, similarities)
    return Looked(
        [relatives.get(example.id) for example in examples],
        {lookup: {name: _as_answer(text) for name, text in found.items()} for lookup, found in texts.items()},
    )


def _as_answer(text: str) -> AnswerText:
    return AnswerText(text=text, tokens=0, truncated=False)


def _most_frequent(asked: Sequence[Example], known: Sequence[Example], *, is_set: bool) -> dict[str, str]:
    """Of equally frequent answers the one that training has first; of a question's choices if it has any."""
    counts = Counter(_meaning(example.answer, is_set=is_set) for example in known)
    first = {_meaning(example.answer, is_set=is_set): example.answer for example in reversed(known)}
    overall = first[max(counts, key=counts.__getitem__)]
    return {
        example.id: max(example.choices, key=lambda choice: counts[_meaning(choice, is_set=is_set)])
        if example.choices
        else overall
        for example in asked
    }


def _meaning(answer: str, *, is_set: bool) -> Hashable:
    return members(answer) if is_set else tuple(words(answer))


def _nearest_answer(example: Example, known: Sequence[Example], similarities: np.ndarray) -> str:
    """That of the nearest training question; for choices, of the nearest one answered with one of them."""
    if example.choices is not None:
        offered = np.array([one.answer in example.choices for one in known])
        if not offered.any():
            return ""
        similarities = np.where(offered, similarities, -1.0)
    return known[int(similarities.argmax())].answer


def _overlapping(example: Example) -> str:
    """The choice of whose n-grams the largest share stands in the question; of equal ones the first."""
    question = _asked_grams(example)

    def share(choice: str) -> float:
        grams = _grams(choice)
        return len(grams & question) / len(grams)

    return max(example.choices or [], key=share)


def _similarities(asked: Sequence[Example], known: Sequence[Example]) -> Iterator[np.ndarray]:
    """For each question asked its similarity to each known one; equal ones keep the order of training."""
    grams = [_asked_grams(example) for example in known]
    counts = Counter(chain.from_iterable(grams))
    most = WORDING * len(known) if len(known) >= SMALLEST_SAMPLE else len(known)
    wording = {gram for gram, count in counts.items() if count > most}
    columns = {gram: number for number, gram in enumerate(sorted(counts.keys() - wording))}
    table = _table(grams, columns)
    sizes = table.sum(axis=1)
    for start in range(0, len(asked), ROWS):
        found = [_asked_grams(example) - wording for example in asked[start : start + ROWS]]
        shared = (_table(found, columns) @ table.T).toarray()
        union = np.array([[len(one)] for one in found]) + sizes - shared
        # Of two integers a quotient is the same on every processor.
        yield from shared / np.maximum(union, 1)


def _table(grams: Sequence[set[str]], columns: Mapping[str, int]) -> csr_array:
    """Shape (questions, n-grams): 1 where a question has one."""
    rows = [sorted(columns[gram] for gram in one if gram in columns) for one in grams]
    ends = np.cumsum([0, *map(len, rows)])
    indices = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=ends[-1])
    return csr_array((np.ones(len(indices), dtype=np.int64), indices, ends), shape=(len(rows), len(columns)))


def _asked_grams(example: Example) -> set[str]:
    return _grams(" ".join([*example.earlier_turns, example.context or "", example.question]))


def _grams(text: str) -> set[str]:
    """The n-grams of a text in lower case, with one space between words and at both ends; at least one."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = f" {' '.join(_WORDS.findall(text)) or text.strip()} "
    return {text[start : start + LENGTH] for start in range(max(len(text) - LENGTH + 1, 1))}
