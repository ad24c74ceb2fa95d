"""Which column holds what: what params.yaml says, else known forms and usual names, never a coin's toss."""

from pathlib import Path
from typing import Any

import pytest

from medtune.core.errors import MedtuneError
from medtune.data.columns import FORMS, Columns, resolve_columns
from medtune.data.params import SourceParams
from tests.data.raw import told, write


def resolved(row: dict[str, Any], **source: Any) -> Columns:
    return resolve_columns(
        "mine", SourceParams.model_validate({"path": "data/raw/x.csv"} | source), [row], "data/raw/x.csv"
    )


def held(row: dict[str, Any], **source: Any) -> dict[str, Any]:
    return resolved(row, **source).params.model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("Question Answer", {"question": "Question", "answer": "Answer"}),
        ("PROMPT Completion uuid", {"id": "uuid", "question": "PROMPT", "answer": "Completion"}),
        ("query response passage", {"question": "query", "answer": "response", "context": "passage"}),
        ("instruction input output", {"question": "instruction", "context": "input", "answer": "output"}),
        ("input output", {"question": "input", "answer": "output"}),
        ("user assistant system", {"question": "user", "answer": "assistant", "system": "system"}),
        ("question answers", {"question": "question", "answers": "answers"}),
        ("question long_answer", {"question": "question", "answer": "long_answer"}),
        (
            "question A B C D answer",
            {"question": "question", "answer": "answer", "choices": ["A", "B", "C", "D"]},
        ),
        (
            "question option_a option_b target",
            {"question": "question", "answer": "target", "choices": ["option_a", "option_b"]},
        ),
        ("question a b d answer", {"question": "question", "answer": "answer", "choices": ["a", "b"]}),
        (
            "id question answer kind group context system",
            {n: n for n in ("id", "question", "answer", "kind", "group", "context", "system")},
        ),
        (
            "question answer messages",
            {"question": "question", "answer": "answer", "messages": "messages"},
        ),
        ("messages source", {"messages": "messages"}),
    ],
)
def test_columns_are_known_by_their_usual_names(columns: str, found: dict[str, Any]) -> None:
    assert held(dict.fromkeys(columns.split(), "x")) == found


@pytest.mark.parametrize(
    "columns",
    ["opa opb opc", "OptionA OptionB", "option1 option2 option3", "choice_0 choice_1", "answerA answerB"],
)
def test_columns_of_one_choice_each_are_known_by_their_letters_or_numbers(columns: str) -> None:
    found = held(dict.fromkeys(f"question {columns} label".split(), "x"))
    assert found == {"question": "question", "answer": "label", "choices": columns.split()}


def test_a_column_without_a_name_is_not_named_among_those_not_looked_at() -> None:
    assert resolved({"question": "x", "answer": "x", "": None}).ignored == ()


def test_a_form_is_told_by_columns_that_are_its_own() -> None:
    for form in FORMS:
        marks = form.marks if "messages" in form.holds else (*form.marks, "question")
        found = resolved(dict.fromkeys(map(str.upper, marks), "x"))
        assert found.form == form.name
        assert {name for name in form.holds if name not in found.params.model_dump(exclude_none=True)} <= {
            "context"
        }


def test_what_params_yaml_says_goes_before_every_guess() -> None:
    row = {"question": "x", "final_decision": "yes", "long_answer": "x"}
    assert resolved(row).choices == ("yes", "no", "maybe")
    found = resolved(row, columns={"answer": "long_answer"})
    assert found.params.answer == "long_answer" and found.choices is None
    assert held({"question": "x", "answer": "x", "title": "x"}, columns={"question": "title"}) == {
        "question": "title",
        "answer": "answer",
    }


def test_a_column_that_params_yaml_gives_one_field_is_no_other_fields_by_a_guess() -> None:
    row = {"instruction": "Answer truthfully", "input": "x", "output": "x"}
    assert held(row, columns={"question": "input"}) == {"question": "input", "answer": "output"}


def test_fields_of_a_mapping_have_a_place_too() -> None:
    row = {"data": {"Question": "x", "Correct": "x"}}
    assert held(row, columns={"question": "data.Question", "answer": "data.Correct"}) == {
        "question": "data.Question",
        "answer": "data.Correct",
    }
    assert held({"question": "", "context": {"contexts": ["x"]}, "final_decision": ""})["context"] == (
        "context.contexts"
    )
    assert (
        held({"question": "", "answers": {"text": ["x"], "answer_start": [1]}})["answers"] == "answers.text"
    )
    assert held({"a.b": "x", "answer": "x"}, columns={"question": "a.b"})["question"] == "a.b"


def test_the_guess_is_told_and_what_is_not_looked_at(raw: Path) -> None:
    row = {"question": "Q?", "opa": "1", "opb": "2", "opc": "3", "opd": "4", "cop": 0, "exp": "because"}
    _, notes = told(write(raw / "mine.csv", [row]))
    assert notes == [
        "data.sources.mine (a file of the form MedMCQA) reads question: question, answer: cop, "
        "choices: opa+opb+opc+opd; not looked at: exp; answers are numbers, of which 0 is the first choice"
    ]


def test_a_column_of_splits_is_not_passed_over_in_silence(raw: Path) -> None:
    _, notes = told(write(raw / "mine.csv", [{"question": "Q?", "answer": "A", "Split": "test"}]))
    assert notes == [
        "data.sources.mine reads question: question, answer: answer; not looked at: Split; rows are split "
        "anew, whatever 'Split' says: to keep ready-made splits, give each a file and name these in "
        "data.sources.mine.splits"
    ]


@pytest.mark.parametrize(
    ("columns", "source", "expected"),
    [
        (
            "frage antwort",
            {},
            r"no column for the question and the answer: it has frage, antwort; say which in ",
        ),
        ("question antwort", {}, r"no column for the answer: .*data.sources.mine.columns.answer: antwort"),
        ("questions answer", {}, r"no column for the question: .*columns.question: questions"),
        ("question label output", {}, r"more than one column may hold the answer: output, label; say which"),
        ("question Answer answer", {}, r"the columns 'Answer' and 'answer' differ in capitals alone"),
        ("question answer", {"columns": {"answer": "anwser"}}, r"lacks; did you mean 'answer'"),
        ("question answer", {"columns": {"choices": ["A", "B"]}}, r"columns.choices is 'A', a column that "),
        (
            "question answer",
            {"columns": {"question": "question.text"}},
            r"is 'question.text', a column that ",
        ),
    ],
)
def test_what_cannot_be_told_is_asked_for(columns: str, source: dict[str, Any], expected: str) -> None:
    with pytest.raises(MedtuneError, match=expected):
        resolved(dict.fromkeys(columns.split(), "x"), **source)


def test_a_field_that_a_mapping_lacks_is_told_with_those_that_it_has() -> None:
    row = {"question": {"stem": "x"}, "answer": "x"}
    with pytest.raises(MedtuneError, match=r"lacks; did you mean 'question.stem'"):
        held(row, columns={"question": "question.steam"})


OPEN = [{"question": f"What is thing {i}?", "answer": f"name {i}"} for i in range(300)]


@pytest.mark.parametrize(
    "late",
    [
        {"options": {"A": "iron", "B": "zinc"}},
        {"context": "It was said before."},
        {"label": 1},
        {"opa": "iron", "opb": "zinc"},
        {"messages": [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Yes."}]},
    ],
    ids=lambda late: next(iter(late)),
)
def test_a_column_that_begins_late_is_not_passed_over(raw: Path, late: dict[str, Any]) -> None:
    """The answer "A" of a question with options was learned as a text, and contexts were not shown."""
    rows = [*OPEN, {"question": "Which metal?", "answer": "A"} | late]
    with pytest.raises(MedtuneError, match=rf"line 301: has '{next(iter(late))}', a column that none of the"):
        told(write(raw / "mine.jsonl", rows))


def test_late_columns_that_nobody_would_read_are_no_fault(raw: Path) -> None:
    last: dict[str, Any] = {
        "question": "And now?",
        "answer": "a",
        "remark": "late",
        "options": None,
        "user": 1,
    }
    rows = [*OPEN, last]
    assert len(told(write(raw / "mine.jsonl", rows))[0]) == 301
    named: list[dict[str, Any]] = [{"q": row["question"], "a": row["answer"]} for row in OPEN]
    named.append({"q": "?!", "a": "x", "label": 1})
    assert len(told(write(raw / "mine.jsonl", named), columns={"question": "q", "answer": "a"})[0]) == 301


def test_every_file_of_a_pattern_says_which_columns_there_are(raw: Path) -> None:
    write(raw / "mine-1.jsonl", OPEN)
    write(raw / "mine-2.jsonl", [{"question": "Which metal?", "options": ["iron", "zinc"], "answer": "A"}])
    examples, _ = told(raw / "mine-*.jsonl")
    assert (examples[-1].answer, examples[-1].choices) == ("iron", ["iron", "zinc"])


def test_letters_and_digits_without_choices_are_a_warning(raw: Path) -> None:
    rows = [{"question": f"Which {i}?", "first": "iron", "second": "zinc", "answer": i % 2} for i in range(9)]
    _, [_, warning] = told(write(raw / "mine.jsonl", rows))
    assert warning.startswith("warning: data.sources.mine: every answer is a single letter or digit")
    assert "if they stand in first, second, name those in data.sources.mine.columns.choices" in warning
    assert len(told(raw / "mine.jsonl", columns={"choices": ["first", "second"]}, first_choice=0)[1]) == 1
    assert len(told(write(raw / "mine.jsonl", [{**row, "answer": "iron 1"} for row in rows[:4]]))[1]) == 1
