"""Rows of files: every format, packed or not, gives the same rows; each knows where it stands."""

import codecs
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from medtune.core.errors import MedtuneError
from medtune.data import files
from medtune.data.faults import Fault
from medtune.data.files import format_of, place_in, rows_of
from medtune.data.preparation import prepare
from tests.data.raw import WRITERS, params, read, write

ROWS = [
    {"id": "a", "question": "What is anæmia, in short?", "answer": 'Too little "red"'},
    {"id": "b", "question": "Two\nlines?", "answer": "One,\tor two"},
]


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_rows_packed_or_not(raw: Path, suffix: str, packed: str) -> None:
    path = write(raw / f"mine{suffix}{packed}", ROWS)
    assert [row for _, row in rows_of(path)] == ROWS
    assert [(e.id, e.question, e.answer) for e in read(path)] == [tuple(row.values()) for row in ROWS]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("mine.csv", ".csv"),
        ("MINE.CSV", ".csv"),
        ("mine.v1.2.jsonl.gz", ".jsonl"),
        ("mine.csv.txt", None),
        ("mine.gz", None),
        ("mine", None),
        ("mine.gz.gz", None),
    ],
)
def test_the_last_suffix_but_for_the_packing_says_the_format(name: str, known: str | None) -> None:
    assert format_of(Path(name)) == known


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS, indent=2),
        json.dumps({"data": ROWS}),
        json.dumps({"version": 2, "questions": ROWS}),
        json.dumps({row["id"]: {k: v for k, v in row.items() if k != "id"} for row in ROWS}, indent=1),
        "\n".join(map(json.dumps, ROWS)),
        "\r\n\r\n".join(map(json.dumps, ROWS)) + "\r\n",
    ],
    ids=["list", "data", "questions", "by id", "lines", "lines of Windows"],
)
def test_json_is_a_list_an_object_by_ids_or_lines(raw: Path, content: str) -> None:
    (raw / "mine.json").write_text(content)
    found = [row for _, row in rows_of(raw / "mine.json")]
    assert found == ROWS


def test_json_with_a_single_row_is_that_row(raw: Path) -> None:
    (raw / "mine.json").write_text(json.dumps(ROWS[0]))
    assert [row for _, row in rows_of(raw / "mine.json")] == ROWS[:1]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_a_byte_order_mark_and_line_ends_of_windows_make_no_difference(raw: Path, suffix: str) -> None:
    rows = [{"id": "1", "question": "Q?", "answer": "A"}, {"id": "2", "question": "R?", "answer": "B"}]
    content = WRITERS[suffix](rows).replace(b"\n", b"\r\n")
    (raw / f"mine{suffix}").write_bytes(codecs.BOM_UTF8 + content)
    assert [row for _, row in rows_of(raw / f"mine{suffix}")] == rows


def test_rows_know_their_line_past_blank_ones_and_cells_of_several_lines(raw: Path) -> None:
    (raw / "mine.csv").write_text('question,answer\n"a\nb",1\n\n,\nc,2\n')
    assert [(number, row) for number, row in rows_of(raw / "mine.csv")] == [
        (2, {"question": "a\nb", "answer": "1"}),
        (6, {"question": "c", "answer": "2"}),
    ]
    (raw / "mine.jsonl").write_text('\n{"a": 1}\n  \n{"a": 2}')
    assert list(rows_of(raw / "mine.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]
    assert place_in(raw / "mine.csv", 6) == "data/raw/mine.csv, line 6"
    assert place_in(raw / "mine.parquet", 6) == "data/raw/mine.parquet, row 6"


def test_spaces_after_commas_are_no_part_of_names_cells_or_quotes(raw: Path) -> None:
    (raw / "mine.csv").write_text('question, answer , kind\nWhy?, "a, b", \n')
    assert [row for _, row in rows_of(raw / "mine.csv")] == [
        {"question": "Why?", "answer": "a, b", "kind": None}
    ]


def test_a_line_separator_of_unicode_ends_no_row(raw: Path) -> None:
    rows = [{"question": "a\u2028b\x85c?", "answer": "\x0b\x1cd"}]
    (raw / "mine.jsonl").write_text(json.dumps(rows[0], ensure_ascii=False), encoding="utf-8")
    (raw / "mine.csv").write_text("question,answer\na\u2028b\x85c?,\x0b\x1cd\n", encoding="utf-8")
    assert [row for _, row in rows_of(raw / "mine.jsonl")] == rows
    assert [row for _, row in rows_of(raw / "mine.csv")] == rows


def test_a_packed_file_of_several_members_is_read_to_its_end(raw: Path) -> None:
    first, second = (WRITERS[".jsonl"]([row]) for row in ROWS)
    (raw / "mine.jsonl.gz").write_bytes(gzip.compress(first) + gzip.compress(second))
    frames = [pa.compress(part, "zstd", asbytes=True) for part in (first, second)]
    (raw / "mine.jsonl.zst").write_bytes(b"".join(frames))
    assert [row for _, row in rows_of(raw / "mine.jsonl.gz")] == ROWS
    assert [row for _, row in rows_of(raw / "mine.jsonl.zst")] == ROWS


def test_a_pattern_reads_its_files_in_alphabetic_order(raw: Path) -> None:
    write(raw / "mine-2.csv", ROWS[1:])
    write(raw / "mine-1.csv", ROWS[:1])
    write(raw / "other.csv", [{"id": "c", "question": "?", "answer": "!"}])
    (raw / "mine-1.csv.dvc").write_text("outs: []\n")
    assert [e.id for e in read(raw / "mine-*.csv*")] == ["a", "b"]


def test_a_first_file_without_a_readable_row_does_not_hide_the_others(raw: Path) -> None:
    (raw / "1.jsonl").write_text("{\n")
    rows = [{"id": str(i), "question": f"Q{i}?", "answer": f"A{i}"} for i in range(20)]
    write(raw / "2.jsonl", rows)
    found = prepare(params("data/raw/*.jsonl", on_error="drop"))
    assert sum(map(len, found.splits.values())) == 20
    assert [row.place for row in found.rejects] == ["data/raw/1.jsonl, line 1"]


def test_a_row_that_is_too_long_is_a_fault_and_the_next_is_read(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_ROW", 64)
    (raw / "mine.jsonl").write_text(f'{{"a": 1}}\n{{"a": "{"x" * 300}"}}\n{{"a": 2}}\n')
    found = dict(rows_of(raw / "mine.jsonl"))
    assert found.keys() == {1, 2, 3} and found[3] == {"a": 2}
    assert isinstance(found[2], Fault) and "over 64 bytes" in found[2].detail


def test_what_parquet_has_in_one_row_that_is_no_text_is_that_rows_fault(raw: Path) -> None:
    broken = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).cast(pa.string(), safe=False)
    pa.parquet.write_table(pa.table({"question": broken}), raw / "mine.parquet")
    found = [row for _, row in rows_of(raw / "mine.parquet")]
    assert found[0] == {"question": "good"} and found[2] == {"question": "fine"}
    assert isinstance(found[1], Fault) and "not readable" in found[1].detail


def test_a_field_that_stands_there_twice_is_told_of_the_row_that_has_it(raw: Path) -> None:
    twice = '[{"a": {"b": 1}}, {"a": [{"b": 1, "b": 2}]}, {"a": 3}]'
    (raw / "mine.json").write_text(twice)
    found = [row for _, row in rows_of(raw / "mine.json")]
    assert isinstance(found[1], Fault) and "'b' stands there twice" in found[1].detail
    assert [found[0], found[2]] == [{"a": {"b": 1}}, {"a": 3}]


def test_a_file_larger_than_the_memory_is_told(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str, **_: object) -> None:
        raise MemoryError

    write(raw / "mine.json", ROWS)
    monkeypatch.setattr("medtune.data.files.json.loads", full)
    with pytest.raises(MedtuneError, match="larger than the memory; accepted: JSONL or Parquet"):
        list(rows_of(raw / "mine.json"))


def test_numbers_of_32_bits_are_the_decimals_that_were_meant(raw: Path) -> None:
    numbers = pa.array([0.1, 2.5, None], pa.float32())
    pa.parquet.write_table(pa.table({"answer": numbers}), raw / "mine.parquet")
    assert [row for _, row in rows_of(raw / "mine.parquet")] == [{"answer": n} for n in (0.1, 2.5, None)]


@pytest.mark.parametrize("other", ["examples", "train"])
def test_json_with_rows_in_two_places_is_refused(raw: Path, other: str) -> None:
    (raw / "mine.json").write_text(json.dumps({"data": ROWS, other: ROWS, "tags": ["a"]}))
    with pytest.raises(MedtuneError, match=f"mine.json: has rows in data and in {other}; expected a list"):
        read(raw / "mine.json")


def test_a_file_whose_name_looks_like_a_pattern_is_itself(raw: Path) -> None:
    write(raw / "mine1.jsonl", ROWS[:1])
    write(raw / "mine[1].jsonl", ROWS[1:])
    assert [e.id for e in read(raw / "mine[1].jsonl")] == ["b"]


def test_ids_of_repeats_are_not_the_same_in_the_same_line_of_several_files(raw: Path) -> None:
    rows = [{name: row[name] for name in ("question", "answer")} for row in ROWS]
    for number in range(4):
        write(raw / f"mine-{number}.jsonl", rows)
    assert len({example.id for example in read(raw / "mine-*.jsonl")}) == 8
