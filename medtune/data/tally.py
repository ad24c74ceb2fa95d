"""What is counted of a split for the data card while its examples are written, one after the other."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from medtune.core.examples import Example

_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
"""Kana and Chinese characters, which no blanks part."""


@dataclass
class Tally:
    """How many words questions (with their context) and answers have, and where the right choice stands.

    It has an entry for every length that occurs, not for every example.
    """

    questions: "Counter[int]" = field(default_factory=Counter)
    answers: "Counter[int]" = field(default_factory=Counter)
    right_choices: "Counter[tuple[int, int]]" = field(default_factory=Counter)
    """By the place of the right choice, from 1, and how many choices there are."""

    def of(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples as they are, each counted as it passes."""
        for example in examples:
            self.questions[_words(example.question) + _words(example.context or "")] += 1
            self.answers[_words(example.answer)] += 1
            if example.choices is not None:
                place = example.choices.index(example.answer) + 1
                self.right_choices[place, len(example.choices)] += 1
            yield example


def _words(text: str) -> int:
    """What stands between blanks, and every character of a script that has none."""
    return len((text if text.isascii() else _UNSPACED.sub(" x ", text)).split())
