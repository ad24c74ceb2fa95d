"""Answers are compared only if both are to the same questions, to all, and of the test split that is here."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from medtune.core.answers import AnswerText, read_answers, write_answers
from medtune.core.errors import MedtuneError
from medtune.core.examples import drawn_indices, write_jsonl
from medtune.core.hashing import file_sha256
from medtune.evaluate.pairing import paired
from tests.conftest import example

EXAMPLES = [
    example(
        id=str(i),
        kind="choice" if i % 2 else "free",
        **({"choices": ["A high temperature.", "b"]} if i % 2 else {}),
    )
    for i in range(8)
]
TEST = Path("data/prepared/test.jsonl")
Content = dict[str, Any]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Content:
    """The content of an honest answers file: three of each kind."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(TEST, EXAMPLES)
    record = {
        "inputs": {str(TEST): file_sha256(TEST)},
        "parameters": {"answer": {"seed": 3, "examples_per_kind": 3}},
        "base_model": {"sha256": "0"},
    }
    selected = [EXAMPLES[index] for index in drawn_indices(EXAMPLES, 3, 3)]
    given = [
        AnswerText(text="b", tokens=1, truncated=False, log_likelihoods=[-2.0, -1.0] if one.choices else None)
        for one in selected
    ]
    write_answers(Path("answers.json"), record, [one.id for one in selected], given)
    return json.loads(Path("answers.json").read_text())


def pair(base: Content, tuned: Content) -> list[int]:
    for name, content in (("base", base), ("tuned", tuned)):
        Path(f"{name}.json").write_text(json.dumps(content))
    return paired(EXAMPLES, TEST, read_answers(Path("base.json")), read_answers(Path("tuned.json")))


def test_honest_answers_pair_in_the_order_of_the_test_split(answers: Content) -> None:
    assert pair(answers, answers) == drawn_indices(EXAMPLES, 3, 3)


def test_questions_that_were_too_long_for_both_are_not_paired(answers: Content) -> None:
    left_out = answers["answers"].pop(1)["id"]
    answers["too_long"].append(left_out)
    assert [EXAMPLES[index].id for index in pair(answers, answers)] == [
        row["id"] for row in answers["answers"]
    ]
    assert read_answers(Path("base.json")).too_long == [left_out]
    answers["too_long"] += [row["id"] for row in answers["answers"]]
    answers["answers"] = []
    with pytest.raises(MedtuneError, match="holds no answer"):
        pair(answers, answers)


def drop(content: Content) -> None:
    del content["answers"][2]


def repeat(content: Content) -> None:
    content["answers"].append(content["answers"][0])


def invent(content: Content) -> None:
    content["answers"].append(dict(content["answers"][0], id="9"))


def leave_out(content: Content) -> None:
    content["too_long"].append(content["answers"].pop()["id"])


def leave_out_a_stranger(content: Content) -> None:
    content["too_long"].append("9")


def leave_out_what_is_answered(content: Content) -> None:
    content["too_long"].append(content["answers"][0]["id"])


def leave_out_no_id(content: Content) -> None:
    content["too_long"].append(3)


def other_test(content: Content) -> None:
    content["inputs"] = content["record"]["inputs"][str(TEST)] = "1"


def fewer(content: Content) -> None:
    content["record"]["parameters"]["answer"]["examples_per_kind"] = 2


def other_base(content: Content) -> None:
    content["record"]["base_model"] = {"sha256": "1"}


def no_record(content: Content) -> None:
    content["record"] = {}


def no_parameters(content: Content) -> None:
    content["record"]["parameters"]["answer"] = 3


def no_list(content: Content) -> None:
    content["answers"] = 3


def unlikely(content: Content) -> None:
    next(row for row in content["answers"] if "log_likelihoods" in row)["text"] = "A high temperature."


def unlikely_unquantized(content: Content) -> None:
    for row in content["answers"]:
        row["unquantized"] = {key: value for key, value in row.items() if key != "id"}
    unlikely({"answers": [row["unquantized"] for row in content["answers"]]})


def one_likelihood(content: Content) -> None:
    next(row for row in content["answers"] if "log_likelihoods" in row)["log_likelihoods"] = [-1.0]


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (drop, "is not answered; run `dvc repro`"),
        (repeat, "a question is answered twice"),
        (invent, "the question '9' was not to be asked"),
        (leave_out, "list different questions as too long"),
        (leave_out_a_stranger, "the question '9' was not to be asked"),
        (leave_out_what_is_answered, "is listed as too long, and once more"),
        (leave_out_no_id, "not the answers that a stage wrote"),
        (other_test, "answers the questions of another data/prepared/test.jsonl"),
        (fewer, "was not to be asked"),
        (other_base, "were made with different base_model"),
        (no_record, "its record lacks 'parameters.answer'"),
        (no_parameters, "its record does not say what was asked"),
        (no_list, "not the answers that a stage wrote"),
        (unlikely, "is not answered with its likeliest choice"),
        (unlikely_unquantized, "is not answered with its likeliest choice"),
        (one_likelihood, "lacks the likelihood of a choice"),
    ],
)
def test_tampered_answers_are_refused(
    answers: Content, tamper: Callable[[Content], None], expected: str
) -> None:
    tampered = deepcopy(answers)
    tamper(tampered)
    with pytest.raises(MedtuneError) as error:
        pair(answers, tampered)
    assert expected in str(error.value)


def with_shots(content: Content, number: int) -> Content:
    changed = deepcopy(content)
    changed["record"]["parameters"]["answer"]["shots"] = number
    return changed


NOTHING: Content = {"record": {}, "too_long": [], "answers": []}


def pair_all(content: Content, shots: Content) -> list[int]:
    for name, one in (("base", content), ("shots", shots)):
        Path(f"{name}.json").write_text(json.dumps(one))
    same = read_answers(Path("base.json"))
    return paired(EXAMPLES, TEST, same, same, read_answers(Path("shots.json")))


def test_answers_with_shots_pair_and_are_ignored_if_there_are_none(answers: Content) -> None:
    expected = drawn_indices(EXAMPLES, 3, 3)
    assert pair_all(answers, NOTHING) == pair_all(with_shots(answers, 0), NOTHING) == expected
    assert pair_all(with_shots(answers, 2), with_shots(answers, 2)) == expected


@pytest.mark.parametrize("tamper", [drop, leave_out, other_test, other_base, unlikely])
def test_tampered_answers_with_shots_are_refused(answers: Content, tamper: Callable[[Content], None]) -> None:
    honest = with_shots(answers, 2)
    tampered = deepcopy(honest)
    tamper(tampered)
    with pytest.raises(MedtuneError, match=r"metrics/answers-shots\.json"):
        pair_all(honest, tampered)


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        (0, 2, "holds answers, but answer.shots was 0"),
        (2, None, "its record lacks 'parameters.answer'"),
        (2, 3, "were made with different parameters"),
    ],
)
def test_answers_with_shots_are_those_that_the_parameters_ask_for(
    answers: Content, asked: int, given: int | None, expected: str
) -> None:
    with pytest.raises(MedtuneError, match=expected):
        pair_all(with_shots(answers, asked), NOTHING if given is None else with_shots(answers, given))


def test_answers_that_are_not_there_or_cut_short_say_what_to_run(answers: Content) -> None:
    with pytest.raises(MedtuneError, match=r"nothing.json: not there; run `dvc repro`"):
        read_answers(Path("nothing.json"))
    Path("half.json").write_text(Path("answers.json").read_text()[:200])
    with pytest.raises(MedtuneError, match=r"half.json: not the answers that a stage wrote"):
        read_answers(Path("half.json"))
