"""Long examples for the benches: contexts as abstracts have them, answers of a paragraph.

Their sentences are the definitions of data/prepared/train.jsonl, joined in an order drawn with a fixed seed:
real words, of the model's own language, in as many tokens as an abstract with its question has (300 to 700).
What they say makes no sense, which a speed does not mind.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example, read_jsonl

TRAIN, TEST = Path("data/prepared/train.jsonl"), Path("data/prepared/test.jsonl")
DEFINITIONS = "definition"
SHORT, LONG = "short", "long"
"""The names by which a bench asks for the examples of data/prepared, or for long ones."""
COUNT = 256
CONTEXT, ANSWER = (110, 330), (50, 110)
"""Words at least, and about at most; a word of these texts is some one and a half tokens."""


def require_prepared() -> None:
    """Refuse to start without the data that the sides read."""
    for path in (TRAIN, TEST):
        if not path.is_file():
            raise MedtuneError(f"{path}: not there; run `dvc repro prepare`")


def long_examples(count: int = COUNT) -> list[Example]:
    """So many, always the same."""
    sentences = [one.answer for one in read_jsonl(TRAIN) if one.kind == DEFINITIONS]
    drawn = random.Random(7)
    return [
        Example(
            id=f"long-{number}",
            question="What does this text say of the findings it names?",
            context=_joined(sentences, drawn.randint(*CONTEXT), drawn),
            answer=_joined(sentences, drawn.randint(*ANSWER), drawn),
            kind=DEFINITIONS,
            group=f"long-{number}",
        )
        for number in range(count)
    ]


def _joined(sentences: Sequence[str], words: int, drawn: random.Random) -> str:
    """Sentences until they have so many words; the last is cut off there."""
    found: list[str] = []
    while len(found) < words:
        found += drawn.choice(sentences).split()
    return " ".join(found[:words])
