"""Rows as data sets have them become examples: the question asked, the answer learned, never another one."""

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.core.errors import MedtuneError
from medtune.data.preparation import prepare
from tests.data.raw import one, params, read, write

ZINC = {"question": "Which?", "choices": ["Iron", "Zinc", "Tin"], "answer": "Zinc"}
TURNS = [
    {"role": "user", "content": "What is anosmia?"},
    {"role": "assistant", "content": "No sense of smell."},
    {"role": "user", "content": "And ageusia?"},
    {"role": "assistant", "content": "No sense of taste."},
]
LAST = {
    "question": "And ageusia?",
    "answer": "No sense of taste.",
    "messages": TURNS[:2],
}


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"question": "Q?", "answer": "A"}, {"question": "Q?", "answer": "A"}),
        ({"question": "How many?", "answer": 46}, {"question": "How many?", "answer": "46"}),
        (
            {"instruction": "Explain", "input": "", "output": "So"},
            {"question": "Explain", "answer": "So"},
        ),
        (
            {"instruction": "Explain", "input": "This", "output": "So"},
            {"question": "Explain", "context": "This", "answer": "So"},
        ),
        (
            {
                "input": "What is the relation of low Mg and low K?",
                "output": "Low Mg causes low K.",
                "instruction": "Answer this question truthfully",
            },
            {
                "question": "Answer this question truthfully",
                "context": "What is the relation of low Mg and low K?",
                "answer": "Low Mg causes low K.",
            },
        ),
        (
            {"question": "Q?", "answer": "aspirin", "answers": ["ASA", "aspirin", "acetylsalicylic acid"]},
            {"question": "Q?", "answer": "aspirin", "answers": ["ASA", "acetylsalicylic acid"]},
        ),
        (
            {"question": "Q?", "answers": ["aspirin", "ASA"]},
            {"question": "Q?", "answer": "aspirin", "answers": ["ASA"]},
        ),
        (
            {"question": "Q?", "answers": {"text": ["aspirin", "ASA"], "answer_start": [1, 2]}},
            {"question": "Q?", "answer": "aspirin", "answers": ["ASA"]},
        ),
        (
            {"question": "Q?", "answer": "A", "context": ["One.", "Two."]},
            {"question": "Q?", "answer": "A", "context": "One.\nTwo."},
        ),
        (
            {"question": "Q?", "answer": "A", "system": "Be short."},
            {"question": "Q?", "answer": "A", "system": "Be short."},
        ),
    ],
)
def test_questions_with_an_answer_in_words(raw: Path, row: dict[str, Any], example: dict[str, Any]) -> None:
    assert one(row) == example


CONTEXTS = {"contexts": ["One.", "Two."], "labels": ["BACKGROUND", "RESULTS"], "meshes": []}


def test_pubmedqa_of_the_hub_and_its_own(raw: Path) -> None:
    answer = {"question": "Does it?", "choices": ["yes", "no", "maybe"], "answer": "maybe"}
    hub = {"pubid": 1, "question": "Does it?", "context": CONTEXTS, "long_answer": "L"}
    assert one(hub | {"final_decision": "maybe"}) == answer | {"context": "One.\nTwo."}
    assert one(
        hub | {"final_decision": "Maybe"}, columns={"answer": "long_answer", "context": "context.labels"}
    ) == {"question": "Does it?", "answer": "L", "context": "BACKGROUND\nRESULTS"}
    own = {
        "QUESTION": "Does it?",
        "CONTEXTS": ["One.", "Two."],
        "LONG_ANSWER": "L",
        "final_decision": "maybe",
    }
    (raw / "ori_pqal.json").write_text(json.dumps({"21645374": own, "16418930": own}, indent=4))
    found = read(raw / "ori_pqal.json")
    assert [e.id for e in found] == ["21645374", "16418930"]
    assert found[0].model_dump(include=set(answer) | {"context"}) == answer | {"context": "One.\nTwo."}


@pytest.mark.parametrize(
    ("row", "source"),
    [
        (ZINC, {}),
        (ZINC | {"answer": "zinc"}, {}),
        (ZINC | {"answer": "B"}, {}),
        (ZINC | {"answer": "(b)"}, {}),
        (ZINC | {"answer": "b."}, {}),
        (ZINC | {"answer": 1}, {"first_choice": 0}),
        (ZINC | {"answer": 2.0}, {"first_choice": 1}),
        (ZINC | {"choices": {"A": "Iron", "B": "Zinc", "C": "Tin", "D": None}, "answer": "B"}, {}),
        (ZINC | {"choices": {"1": "Iron", "2": "Zinc", "3": "Tin"}, "answer": 2}, {}),
        (ZINC | {"choices": {"0": "Iron", "1": "Zinc", "2": "Tin"}, "answer": "1"}, {}),
        (
            ZINC
            | {
                "choices": [
                    {"key": "A", "value": "Iron"},
                    {"key": "B", "value": "Zinc"},
                    {"key": "C", "value": "Tin"},
                ],
                "answer": "B",
            },
            {},
        ),
        (
            {
                "question": "Which?",
                "choices": {"text": ["Iron", "Zinc", "Tin"], "label": ["A", "B", "C"]},
                "answerKey": "B",
            },
            {},
        ),
        (
            {
                "question": "Which?",
                "choices": {"text": ["Iron", "Zinc", "Tin"], "label": ["1", "2", "3"]},
                "answerKey": "2",
            },
            {},
        ),
        (
            {"question": "Which?", "options": {"A": "Iron", "B": "Zinc", "C": "Tin"}, "answer_idx": "B"},
            {},
        ),
        (
            {
                "question": "Which?",
                "options": {"A": "Iron", "B": "Zinc", "C": "Tin"},
                "answer_idx": "B",
                "answer": "Zinc",
                "meta_info": "step1",
            },
            {},
        ),
        ({"question": "Which?", "A": "Iron", "B": "Zinc", "C": "Tin", "answer": "B"}, {}),
        ({"question": "Which?", "A": "Iron", "B": "Zinc", "C": "Tin", "D": "", "answer": "B"}, {}),
        (
            {
                "question": "Which?",
                "option_a": "Iron",
                "option_b": "Zinc",
                "option_c": "Tin",
                "answer": "Zinc",
            },
            {},
        ),
        (
            {"stem": "Which?", "x": "Iron", "y": "Zinc", "z": "Tin", "key": "Zinc"},
            {"columns": {"question": "stem", "choices": ["x", "y", "z"], "answer": "key"}},
        ),
        ({"question": "Which?", "answer": "zinc"}, {"choices": ["Iron", "Zinc", "Tin"]}),
        ({"question": "Which?", "label": 1}, {"choices": ["Iron", "Zinc", "Tin"], "first_choice": 0}),
    ],
)
def test_questions_with_choices_however_they_are_written(
    raw: Path, row: dict[str, Any], source: dict[str, Any]
) -> None:
    assert one(row, **source) == ZINC


@pytest.mark.parametrize(
    "cell",
    [
        '["Iron", "Zinc", "Tin"]',
        "['Iron', 'Zinc', 'Tin']",
        '{"A": "Iron", "B": "Zinc", "C": "Tin"}',
        "[{'key': 'A', 'value': 'Iron'}, {'key': 'B', 'value': 'Zinc'}, {'key': 'C', 'value': 'Tin'}]",
        "{'text': ['Iron',\n 'Zinc', 'Tin'], 'label': ['A', 'B', 'C']}",
    ],
)
def test_choices_in_a_cell_are_a_list_or_mapping_as_json_or_python_writes_it(raw: Path, cell: str) -> None:
    path = write(raw / "mine.csv", [{"question": "Which?", "choices": cell, "answer": "B"}])
    found = read(path)[0]
    assert (found.choices, found.answer) == (["Iron", "Zinc", "Tin"], "Zinc")


def test_other_cells_may_hold_lists_too(raw: Path) -> None:
    row = {"question": "Q?", "context": "['One.', \"It's two.\"]", "answers": '["aspirin", "ASA"]'}
    found = read(write(raw / "mine.csv", [row]))[0]
    assert (found.context, found.answer, found.answers) == ("One.\nIt's two.", "aspirin", ["ASA"])
    found = read(write(raw / "mine.csv", [row | {"context": "[BACKGROUND] As is."}]))[0]
    assert found.context == "[BACKGROUND] As is."


def rows_with_numbers(first: int) -> list[dict[str, Any]]:
    """Ten MedMCQA rows whose choices each name their own number."""
    return [
        {"id": i, "question": f"Q{i}?", "opa": "0", "opb": "1", "opc": "2", "opd": "3", "cop": i % 4 + first}
        | {f"op{letter}": f"choice {place}" for place, letter in enumerate("abcd")}
        for i in range(10)
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_count_from_0_or_1_as_the_whole_file_says(raw: Path, first: int, suffix: str) -> None:
    found = read(write(raw / f"mine{suffix}", rows_with_numbers(first)))
    assert [e.answer for e in found] == [f"choice {i % 4}" for i in range(10)]


def test_mmlu_in_parquet_without_its_empty_columns(raw: Path) -> None:
    rows = [
        {"question": f"Q{i}?", "subject": "anatomy", "choices": ["w", "x", "y", "z"], "answer": i % 4}
        for i in range(8)
    ]
    assert [e.answer for e in read(write(raw / "mine.parquet", rows))] == list("wxyzwxyz")


def test_pandas_makes_floats_of_ids_and_numbers_where_a_cell_is_empty(raw: Path) -> None:
    (raw / "mine.csv").write_text("id,question,A,B,answer\n1.0,Q?,x,y,0.0\n2.0,R?,x,y,1.0\n")
    assert [(e.id, e.answer) for e in read(raw / "mine.csv")] == [("1.0", "x"), ("2.0", "y")]
    rows = [{"id": 1.0, "question": "Q?", "A": "x", "B": "y", "answer": 0.0, "context": float("nan")}]
    found = read(write(raw / "mine.parquet", [*rows, rows[0] | {"id": 2.0, "answer": 1.0}]))
    assert [(e.id, e.answer, e.context) for e in found] == [("1", "x", None), ("2", "y", None)]


def test_blood_groups_are_not_guessed(raw: Path) -> None:
    row = {"question": "Which group has anti-B only?", "choices": ["O", "A", "B", "AB"], "answer": "A"}
    with pytest.raises(MedtuneError) as error:
        one(row)
    assert str(error.value).startswith(
        "data/raw/mine.jsonl, line 1: answer is 'A': as text 'A', or as letter 'O'; say which: "
        "data.sources.mine.answer_as: text or letter"
    )
    assert one(row, answer_as="text")["answer"] == "A"
    assert one(row, answer_as="letter")["answer"] == "O"


def test_numbers_among_numbers_are_not_guessed_either(raw: Path) -> None:
    rows = [
        {"id": i, "question": f"How many, {i}?", "choices": [str(n) for n in (3, 1, 2, i + 10)], "answer": i}
        for i in range(4)
    ]
    with pytest.raises(MedtuneError, match=r"answer is '1': as text '1', or as number '1'|as number"):
        read(write(raw / "mine.jsonl", rows))
    found = read(raw / "mine.jsonl", answer_as="number", first_choice=0)
    assert [e.answer for e in found] == ["3", "1", "2", "13"]


def test_readings_that_agree_are_one(raw: Path) -> None:
    row = {"question": "Which vitamin?", "choices": ["A", "B", "C"], "answer": "B"}
    assert one(row)["answer"] == "B"


@pytest.mark.parametrize("said", ["Iron", "something else"])
def test_two_columns_that_say_different_answers_make_a_fault(raw: Path, said: str) -> None:
    row = {"question": "Which?", "options": {"A": "Iron", "B": "Zinc"}, "answer_idx": "B", "answer": said}
    with pytest.raises(MedtuneError, match=f"answer_idx is 'B', which is 'Zinc', but answer is '{said}'"):
        one(row)
    assert one(row | {"answer": " zinc"})["answer"] == "Zinc"
    assert one(row | {"answer": "B"})["answer"] == "Zinc"
    assert one(row | {"answer": None})["answer"] == "Zinc"


@pytest.mark.parametrize(
    "turns",
    [
        TURNS,
        [{"from": {"user": "human"}.get(turn["role"], "gpt"), "value": turn["content"]} for turn in TURNS],
        [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in TURNS],
    ],
    ids=["messages", "ShareGPT", "parts"],
)
@pytest.mark.parametrize("name", ["messages", "conversations", "chat"])
def test_conversations_ask_their_last_question(raw: Path, turns: list[dict[str, Any]], name: str) -> None:
    source: dict[str, Any] = {"columns": {"messages": "chat"}} if name == "chat" else {}
    assert one({name: turns}, **source) == LAST
    assert one({name: turns[:2]}, **source) == {
        "question": "What is anosmia?",
        "answer": "No sense of smell.",
    }
    system = {"role": "system", "content": "Be short."}
    assert one({name: [system, *turns]}, **source) == LAST | {"system": "Be short."}
    for suffix in (".csv", ".parquet"):
        row = {name: json.dumps([system, *turns]) if suffix == ".csv" else [*turns]}
        found = read(write(raw / f"mine{suffix}", [row]), **source)[0]
        assert (found.question, found.answer) == (LAST["question"], LAST["answer"])


def test_the_turns_before_a_question_may_stand_beside_it(raw: Path) -> None:
    assert one(LAST) == LAST
    with pytest.raises(MedtuneError, match="messages ends with the question and its answer; accepted beside"):
        one(LAST | {"messages": TURNS})


def test_what_prepare_writes_can_be_read_again(raw: Path) -> None:
    rows = [
        {"id": str(i), "kind": "k", "group": str(i), "question": f"Q{i}?", "answer": "x"}
        | ({"choices": ["x", "y"]} if i % 2 else {"answers": ["z"]} | LAST | {"question": f"Q{i}?"})
        for i in range(20)
    ]
    found = prepare(params(str(write(raw / "mine.jsonl", rows)))).splits["train"]
    again = write(raw / "again.jsonl", [one.model_dump(exclude_none=True) for one in found])
    assert read(again) == list(found)


def test_source_wide_kinds_and_system_prompts(raw: Path) -> None:
    rows = [{"question": "Q?", "answer": "A"}, {"question": "R?", "answer": "B", "kind": "k", "system": "S"}]
    path = write(raw / "mine.jsonl", rows)
    assert [(e.kind, e.system) for e in read(path)] == [("mine", None), ("k", "S")]
    assert [(e.kind, e.system) for e in read(path, kind="x", system="T")] == [("x", "T"), ("x", "S")]


def test_a_kind_with_one_answer_only_is_said(raw: Path) -> None:
    rows = [{"question": f"Is it {i}?", "final_decision": "yes"} for i in range(40)]
    write(raw / "mine.jsonl", rows)
    notes = prepare(params()).notes
    assert "warning: all 40 questions of the kind 'mine' have the answer 'yes'" in notes[-1]
    write(raw / "mine.jsonl", [*rows, {"question": "And now?", "final_decision": "no"}])
    assert not [note for note in prepare(params()).notes if "warning" in note]


def test_a_letter_without_choices_is_no_answer_in_words(raw: Path) -> None:
    rows: list[dict[str, Any]] = [ZINC | {"answer": "B"}, ZINC | {"answer": "B", "choices": None}]
    with pytest.raises(
        MedtuneError, match=r"line 2: choices is empty, but answer is 'B'; accepted: two choice"
    ):
        read(write(raw / "mine.jsonl", rows))
    rows[1] = {"question": "Why?", "answer": "Because."}
    assert [e.choices for e in read(write(raw / "mine.jsonl", rows))] == [ZINC["choices"], None]


@pytest.mark.parametrize(
    "shown", ["[3, 1.50, 2]", '["pear", "apple"]', '{"name": "Ada"}'], ids=["numbers", "texts", "object"]
)
def test_what_an_instruction_is_about_is_shown_as_it_is_written(raw: Path, shown: str) -> None:
    row = {"instruction": "Sort it.", "input": shown, "output": "so"}
    assert one(row)["context"] == shown


def test_numbers_in_brackets_are_no_paragraphs(raw: Path) -> None:
    row = {"question": "Which is largest?", "context": "[3, 1.50]", "answer": "3"}
    assert one(row)["context"] == "[3, 1.50]"


def test_letters_that_choices_bring_along_count_in_whatever_order_they_are(raw: Path) -> None:
    """The letter was taken for a place, and the wrong choice learned."""
    row = {"question": "Which is in haemoglobin?", "choices": ["B. Zinc", "(A) Iron"], "answer": "A"}
    assert one(row)["answer"] == "(A) Iron"
    assert one(row | {"choices": ["A. Iron", "B. Zinc"]})["answer"] == "A. Iron"
    assert one(row | {"choices": ["C. difficile", "A. fumigatus"], "answer": "B"})["answer"] == "A. fumigatus"


def test_keys_that_differ_in_capitals_are_told_apart(raw: Path) -> None:
    row = {"question": "Which?", "options": {"A": "Iron", "a": "Zinc"}}
    assert [one(row | {"answer": key})["answer"] for key in ("A", "a")] == ["Iron", "Zinc"]


@pytest.mark.parametrize("column", ["answer_index", "label"])
def test_a_number_that_points_to_one_of_numbers_is_not_guessed(raw: Path, column: str) -> None:
    """Every answer is a choice too, so nothing else in the file tells that it is a place."""
    row = {"question": "How many?", "choices": ["1", "2", "3", "4"], column: 1}
    with pytest.raises(MedtuneError, match=f"{column} is '1': as text that choice, or as number its place"):
        one(row)
    assert one(row, answer_as="text")["answer"] == "1"
    assert one(row, answer_as="number", first_choice=0)["answer"] == "2"


@pytest.mark.parametrize(
    "said",
    [{"weight": 0}, {"train": False}, {"tool_calls": [{"name": "look_up"}]}],
    ids=lambda said: next(iter(said)),
)
def test_a_turn_that_is_not_to_be_learned_or_calls_a_tool_is_told(raw: Path, said: dict[str, Any]) -> None:
    turns = [{"role": "user", "content": "Is it bad?"}, {"role": "assistant", "content": "Seldom."} | said]
    with pytest.raises(MedtuneError, match=f"messages: turn 2 has {next(iter(said))} "):
        one({"messages": turns})
    turns[1] = {"role": "assistant", "content": "Seldom.", "weight": 1, "tool_calls": None}
    assert one({"messages": turns})["answer"] == "Seldom."
