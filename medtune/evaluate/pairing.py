"""Whether two sets of answers are comparable: to the same questions, to all, and of the test split here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtune.core.answers import BASE, SHOTS, TUNED, Answers, AnswerText
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example, drawn_indices
from medtune.core.hashing import file_sha256
from medtune.evaluate.choices import pick


def paired(
    examples: Sequence[Example], test: Path, base: Answers, tuned: Answers, shots: Answers | None = None
) -> list[int]:
    """Indices of the test questions that all answer; refuse answers that cannot be compared.

    They have to be to the questions of the file `test`, to those and no others that their own parameters
    draw from it, and of one base model asked in one way. Questions that were too long to be asked have to be
    listed, the same for all. `shots` are the answers of the base with shots; there are none without
    `answer.shots`.
    """
    compared = {BASE: base, TUNED: tuned}
    if shots is not None and _has_shots(tuned, shots):
        compared[SHOTS] = shots
    sha256 = file_sha256(test)
    for path, answers in compared.items():
        drawn = _drawn(path, answers.record, examples)
        if _field(path, answers.record, "inputs", test.as_posix()) != sha256:
            raise MedtuneError(f"{path}: answers the questions of another {test}; run `dvc repro`")
        wanted, known = {examples[index].id for index in drawn}, answers.given.keys() | {*answers.too_long}
        if missing := sorted(wanted - known):
            raise MedtuneError(f"{path}: the question '{missing[0]}' is not answered; run `dvc repro`")
        if extra := sorted(known - wanted):
            raise MedtuneError(f"{path}: the question '{extra[0]}' was not to be asked; run `dvc repro`")
        indices = [index for index in drawn if examples[index].id in answers.given]
        for index in indices:
            for given in filter(None, (answers.given, answers.unquantized)):
                _require_likeliest(path, examples[index], given)
        _require_alike(base, path, answers)
    if not indices:
        raise MedtuneError(f"{TUNED}: holds no answer; run `dvc repro`")
    return indices


def _has_shots(tuned: Answers, shots: Answers) -> bool:
    """Whether there are answers with shots, which is as the parameters have it."""
    wanted = _field(TUNED, tuned.record, "parameters", "answer")
    if isinstance(wanted, Mapping) and wanted.get("shots", 0):
        return True
    if shots.given or shots.record or shots.too_long:
        raise MedtuneError(f"{SHOTS}: holds answers, but answer.shots was 0; run `dvc repro`")
    return False


def _require_alike(base: Answers, path: Path, other: Answers) -> None:
    for key in ("base_model", "parameters"):
        if base.record.get(key) != other.record.get(key):
            raise MedtuneError(f"{BASE} and {path} were made with different {key}; run `dvc repro`")
    if sorted(base.too_long) != sorted(other.too_long):
        raise MedtuneError(f"{BASE} and {path} list different questions as too long; run `dvc repro`")


def _drawn(path: Path, record: Mapping[str, Any], examples: Sequence[Example]) -> list[int]:
    drawn = _field(path, record, "parameters", "answer")
    try:
        return drawn_indices(examples, drawn["seed"], drawn["examples_per_kind"])
    except (KeyError, TypeError):
        raise MedtuneError(f"{path}: its record does not say what was asked; run `dvc repro`") from None


def _field(path: Path, record: Mapping[str, Any], *keys: str) -> Any:
    value: Any = record
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise MedtuneError(f"{path}: its record lacks '{'.'.join(keys)}'; run `dvc repro`")
        value = value[key]
    return value


def _require_likeliest(path: Path, example: Example, given: Mapping[str, AnswerText]) -> None:
    """Refuse a pick that is not the likeliest of a question's choices (of equally likely ones the first)."""
    answer = given[example.id]
    if example.choices is None and answer.log_likelihoods is None:
        return
    choices, likelihoods = example.choices or [], answer.log_likelihoods or []
    if len(choices) != len(likelihoods):
        raise MedtuneError(f"{path}: '{example.id}' lacks the likelihood of a choice; run `dvc repro`")
    if answer.text != choices[pick(choices, likelihoods, "sum")]:
        raise MedtuneError(f"{path}: '{example.id}' is not answered with its likeliest choice")
