"""What a model said to the test questions: `metrics/answers-{base,tuned,shots}.json`.

    {"record": {"inputs": {...}, "parameters": {...}, "base_model": {...}},
     "too_long": ["HP:0000007/definition/0"],
     "answers": [{"id": "HP:0001166/definition/0", "text": "Long fingers.", "tokens": 4, "truncated": false}]}

The stages answer-base, answer-tuned and answer-shots write them, `evaluate` reads them. The record names what
made them, and nothing of where: equal answers are equal files. `too_long` lists the questions that were not
asked, since the model's context has no room for them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from medtune.core.errors import MedtuneError, plain_words
from medtune.core.outputs import write_json

BASE = Path("metrics/answers-base.json")
TUNED = Path("metrics/answers-tuned.json")
SHOTS = Path("metrics/answers-shots.json")


class AnswerText(BaseModel):
    """An answer, the number of its tokens, and whether the length limit cut it off.

    One that was picked from choices comes with the log-likelihood of each, in nats and in their order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str
    tokens: int
    truncated: bool
    log_likelihoods: list[float] | None = None


_IDS = TypeAdapter(list[str])


class _Row(AnswerText):
    id: str
    unquantized: AnswerText | None = None


@dataclass(frozen=True)
class Answers:
    """Answers by the ids of their examples; `unquantized` are those on the unquantised base, if asked.

    `too_long` are the ids of those that were not asked, as they exceed the model's context.
    """

    record: Mapping[str, Any]
    given: Mapping[str, AnswerText]
    unquantized: Mapping[str, AnswerText] | None = None
    too_long: Sequence[str] = ()


def without_code(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record that does not name the code: other code that gives the same answers leaves an equal file."""
    inputs = {name: value for name, value in record["inputs"].items() if not name.startswith("digests/")}
    return dict(record) | {"inputs": inputs}


def write_answers(
    path: Path,
    record: Mapping[str, Any],
    ids: Sequence[str],
    answers: Sequence[AnswerText],
    unquantized: Sequence[AnswerText] | None = None,
    too_long: Sequence[str] = (),
) -> None:
    """Write the answers to the examples with these ids, in their order, and the ids of those not asked."""
    rows = [
        {"id": name} | answer.model_dump(exclude_none=True) for name, answer in zip(ids, answers, strict=True)
    ]
    for row, other in zip(rows, unquantized or (), strict=unquantized is not None):
        row["unquantized"] = other.model_dump(exclude_none=True)
    write_json(path, {"record": record, "too_long": list(too_long), "answers": rows})


def write_no_answers(path: Path) -> None:
    """Write the file of a stage that asks nothing: the same bytes whatever it might have asked."""
    write_answers(path, {}, [], [])


def read_answers(path: Path) -> Answers:
    """Read and check what `write_answers` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record, rows = content["record"], [_Row.model_validate(row) for row in content["answers"]]
        too_long = _IDS.validate_python(content.get("too_long", []))
    except FileNotFoundError:
        raise MedtuneError(
            f"{path}: not there; run `dvc repro` to make it or `dvc pull` to fetch it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        detail = plain_words(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
        raise MedtuneError(
            f"{path}: not the answers that a stage wrote ({detail}); run `dvc repro`"
        ) from None
    given = {row.id: AnswerText(**row.model_dump(exclude={"id", "unquantized"})) for row in rows}
    if len(given) != len(rows):
        raise MedtuneError(f"{path}: a question is answered twice; run `dvc repro`")
    listed = Counter([*given, *too_long])
    if twice := [name for name in too_long if listed[name] > 1]:
        raise MedtuneError(f"{path}: '{twice[0]}' is listed as too long, and once more; run `dvc repro`")
    others = {row.id: row.unquantized for row in rows if row.unquantized is not None}
    if others and others.keys() != given.keys():
        raise MedtuneError(f"{path}: some questions lack an answer on the unquantised base; run `dvc repro`")
    return Answers(record, given, others or None, too_long)
