"""JSONL files: written and read back, and every bad line named."""

import json
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.examples import read_jsonl, write_jsonl
from tests.conftest import example

GOOD = {"id": "1", "question": "Q?", "answer": "A", "kind": "k", "group": "g"}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    examples = [
        example(id="1", question="Fièvre?\u2028 next", context="c", choices=["x", "A high temperature."]),
        example(id="2"),
    ]
    write_jsonl(path, examples)
    assert read_jsonl(path) == examples
    assert len(path.read_bytes().split(b"\n")) == 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object"),
        (json.dumps({"id": "2", "anser": "x"}), "unknown field 'anser'; did you mean 'answer'?"),
        (
            json.dumps(GOOD | {"id": "2", "notes": "x"}),
            "'notes'; accepted: answers, context, choices, system",
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
