"""JSONL files: written and read back, and every bad line named."""

import json
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.examples import read_jsonl, write_jsonl
from tests.conftest import EARLIER, example

GOOD = {"id": "1", "question": "Q?", "answer": "A", "kind": "k", "group": "g"}


def with_messages(*messages: object) -> str:
    return json.dumps(GOOD | {"id": "2", "messages": messages})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    examples = [
        example(id="1", question="Fièvre?\u2028 next", context="c", choices=["x", "A high temperature."]),
        example(id="2"),
        example(id="3", messages=EARLIER),
    ]
    write_jsonl(path, examples)
    assert read_jsonl(path) == examples
    assert len(path.read_bytes().split(b"\n")) == 4
    lines = path.read_bytes().splitlines()
    assert ["messages" in json.loads(line) for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object"),
        (json.dumps({"id": "2", "anser": "x"}), "unknown field 'anser'; did you mean 'answer'?"),
        (
            json.dumps(GOOD | {"id": "2", "notes": "x"}),
            "'notes'; accepted: answers, context, choices, system, messages",
        ),
        (json.dumps({"id": "2"}), "line 2: the field 'question' is missing"),
        (json.dumps(GOOD | {"id": "2", "answer": "  "}), "line 2: the field 'answer' must have at least 1"),
        (json.dumps(GOOD | {"id": "2", "answer": 3}), "line 2: the field 'answer' must be a valid string"),
        ('{"id": "2", "answer": "no", "answer": "yes"}', "line 2: the field 'answer' stands there twice"),
        (json.dumps(GOOD), "line 2: id '1' stands in line 1 too"),
        (
            json.dumps(GOOD | {"id": "2", "choices": ["x", "y"]}),
            "the answer 'A' is none of the choices: x, y",
        ),
        (
            json.dumps(GOOD | {"id": "2", "answers": ["B"], "choices": [GOOD["answer"], "B"]}),
            "'answers' does not go with 'choices'",
        ),
        (
            json.dumps(GOOD | {"id": "2", "choices": [GOOD["answer"], "x", "x"]}),
            "'choices' has 'x' more than once",
        ),
        (
            with_messages(),
            "line 2: 'messages' is empty; accepted: the turns before the question, user and",
        ),
        (with_messages(EARLIER[0]), "line 2: 'messages' ends with a turn of the user"),
        (
            with_messages(*EARLIER[1:3]),
            "'messages' has a turn of the assistant as number 1, where the user's is due",
        ),
        (
            with_messages(*EARLIER[:2], *EARLIER[1:]),
            "'messages' has a turn of the assistant as number 3, where the user's is due",
        ),
        (
            with_messages(EARLIER[0] | {"role": "system"}),
            "the field 'messages.0.role' must be 'user' or 'assistant'",
        ),
        (with_messages({"role": "user"}), "line 2: the field 'messages.0.content' is missing"),
        (
            with_messages({"role": "user", "contnt": "?"}),
            "field 'messages.0.contnt'; did you mean 'content'?",
        ),
        (with_messages(EARLIER[0] | {"name": "x"}), "'messages.0.name'; accepted: role, content"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(MedtuneError) as error:
        read_jsonl(path)
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_empty_missing_and_binary_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(MedtuneError, match="no such file"):
        read_jsonl(path)
    path.write_text("\n\n")
    with pytest.raises(MedtuneError, match="holds no example"):
        read_jsonl(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert [one.id for one in read_jsonl(path)] == ["1"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MedtuneError, match="line 1: not UTF-8 text: save the file as UTF-8"):
        read_jsonl(path)
