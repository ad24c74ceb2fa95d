"""What is answered instead of what: for kinds with few distinct answers, and for the members of sets.

A model that says "yes" to everything is right as often as "yes" is the answer, and no accuracy shows it.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from medtune.evaluate.predictions import Prediction
from medtune.evaluate.statistics import mean
from medtune.evaluate.wording import members, spelt_members, words

FEW = 10
"""Distinct answers, at the most..."""
REPEATED = 2
"""... and each the answer to so many questions on average, at the least."""
OTHER = "(other)"
"""The column of answers that are none of the right ones."""


def by_answer(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """Confusion, recall by answer, macro-F1 and the rate of the most frequent answer, if answers are few.

    {"labels": [...], "confusion": [[...]], "recall": [...], "macro_f1": ..., "most_frequent": ...}: a row is
    a right answer, a column what was said, the last one anything else. `most_frequent` is what always saying
    the most frequent right answer would score. None where the answers are many.
    """
    labels = _labels(predictions)
    if len(labels) < 2 or len(labels) > FEW or len(predictions) < REPEATED * len(labels):
        return None
    numbers = {meaning: number for number, meaning in enumerate(labels)}
    pairs = [
        (numbers[_said(one, one.example.answer)], numbers.get(_right_or_said(one), len(labels)))
        for one in predictions
    ]
    right, said = (Counter(column) for column in zip(*pairs, strict=True))
    found = _figures(list(labels.values()), Counter(pairs), right, said)
    return found | {"most_frequent": max(right.values()) / right.total()}


def by_member(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """The same for members of sets, such as organ systems: None where no answer has one.

    A member that is there and named counts on the diagonal, one that is missed beside each that was named
    instead, or beside none (the last column).
    """
    spelt: dict[tuple[str, ...], str] = {}
    for one in predictions:
        spelt = spelt_members(one.example.answer) | spelt
    if not spelt:
        return None
    order = sorted(spelt, key=lambda member: spelt[member])
    numbers = {member: number for number, member in enumerate(order)}
    counts: Counter[tuple[int, int]] = Counter()
    right: Counter[int] = Counter()
    said: Counter[int] = Counter()
    for one in predictions:
        ours = members(one.answer.text)
        # A set that is right by another right answer is right.
        theirs = ours if one.correct and ours <= numbers.keys() else members(one.example.answer)
        right.update(numbers[member] for member in theirs)
        said.update(numbers[member] for member in ours if member in numbers)
        counts.update((numbers[member], numbers[member]) for member in theirs & ours)
        instead = {numbers.get(member, len(order)) for member in ours - theirs} or {len(order)}
        counts.update((numbers[missed], other) for missed in theirs - ours for other in instead)
    return _figures([spelt[member] for member in order], counts, right, said)


def _labels(predictions: Sequence[Prediction]) -> dict[Hashable, str]:
    """The right answers by their meaning, as they are spelt first, in alphabetic order."""
    found: dict[Hashable, str] = {}
    for one in predictions:
        found.setdefault(_said(one, one.example.answer), one.example.answer)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _said(prediction: Prediction, text: str) -> Hashable:
    """What is the same answer: choices to the letter, others by their words."""
    return text if prediction.example.choices is not None else tuple(words(text))


def _right_or_said(prediction: Prediction) -> Hashable:
    """A synonym of the right answer counts as that."""
    text = prediction.example.answer if prediction.correct else prediction.answer.text
    return _said(prediction, text)


def _figures(
    labels: list[str], counts: Counter[tuple[int, int]], right: Counter[int], said: Counter[int]
) -> dict[str, Any]:
    hits = [counts[number, number] for number in range(len(labels))]
    f1 = [2 * hit / (right[number] + said[number]) for number, hit in enumerate(hits)]
    return {
        "labels": labels,
        "confusion": [
            [counts[row, column] for column in range(len(labels) + 1)] for row in range(len(labels))
        ],
        "recall": [hit / right[number] for number, hit in enumerate(hits)],
        "macro_f1": mean(f1),
    }
