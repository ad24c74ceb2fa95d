"""The examples as data of the page's table.

A row is a list, for 10,000 of them are to load quickly:

    [kind, id, question, context, right answers, choices, [[text, match, cut off], ...], relative]

The context has the turns before the question above it. `kind` is a place in `kinds`, `match` one in
`matches`, the answers are in the order of `models`; a relative is [id, question, similarity, whether it is
near]. What an example lacks is null, such as the answer of a lookup that has none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from medtune.core.examples import Example
from medtune.evaluate.lookups import Relative
from medtune.evaluate.models import NAMES
from medtune.evaluate.predictions import Prediction
from medtune.evaluate.scoring import RANK

MATCHES = sorted(RANK, key=RANK.__getitem__)


def examples(
    predictions: Mapping[str, Sequence[Prediction]], relatives: Sequence[Relative | None], near: float
) -> dict[str, Any]:
    """Everything that the table shows; `near` is the similarity from which on a relative is a near one."""
    kinds = sorted({one.example.kind for one in predictions["tuned"]})
    numbers = {kind: number for number, kind in enumerate(kinds)}
    by_id = [{one.example.id: one for one in some} for some in predictions.values()]
    return {
        "kinds": kinds,
        "matches": MATCHES,
        "models": [NAMES[model] for model in predictions],
        "base": list(predictions).index("base"),
        "tuned": list(predictions).index("tuned"),
        "rows": [
            _row(one.example, [some.get(one.example.id) for some in by_id], relative, numbers, near)
            for one, relative in zip(predictions["tuned"], relatives, strict=True)
        ],
    }


def _row(
    example: Example,
    answers: Sequence[Prediction | None],
    relative: Relative | None,
    numbers: Mapping[str, int],
    near: float,
) -> list[Any]:
    return [
        numbers[example.kind],
        example.id,
        example.question,
        _before(example),
        example.right_answers,
        example.choices,
        [one and [one.answer.text, RANK[one.score.match_type], int(one.answer.truncated)] for one in answers],
        _relative(relative, near) if relative else None,
    ]


def _before(example: Example) -> str | None:
    """What is shown before the question: earlier turns, then the context."""
    turns = [f"{message.role}: {message.content}" for message in example.messages or []]
    return "\n\n".join([*turns, *([example.context] if example.context else [])]) or None


def _relative(relative: Relative, near: float) -> list[Any]:
    similarity = relative.similarity
    return [relative.id, relative.question, round(similarity, 3), similarity >= near]
