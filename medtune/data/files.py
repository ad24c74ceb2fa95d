"""The rows of a file: JSONL, JSON, CSV, TSV or Parquet, each as it is or compressed (.gz, .zst).

    for number, row in rows_of(Path("data/raw/mine.csv.gz")):
        ...                      # number: the line or the row; row: its columns, or why it cannot be read

Rows are read one after the other; of a JSON file alone the whole is in memory. What is wrong with one row
comes in its place, what is wrong with the file is an error.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from medtune.core.errors import MedtuneError
from medtune.data.faults import Fault

Fields = dict[str, Any]
Rows = Iterator[tuple[int, Fields | Fault]]

LONGEST_ROW = 16_000_000
"""Bytes; a longer line is no question but a file without line ends."""
COMPRESSIONS = (".gz", ".zst")
ROWS_AT_ONCE = 512
_WRAPPED = ("data", "examples", "rows", "questions")
"""Keys of a JSON object under which a file may have its list of rows."""


@lru_cache
def format_of(path: Path) -> str | None:
    """The suffix that says how a file is read, such as ".csv" of "mine.csv.gz"; None if it is not known."""
    names = path.suffixes
    if names and names[-1] in COMPRESSIONS:
        names.pop()
    return names[-1].lower() if names and names[-1].lower() in READERS else None


def place_in(path: Path, number: int) -> str:
    """Where a row stands, in words: "mine.csv, line 7"; of Parquet and JSON "row 7"."""
    return f"{path}, {'row' if format_of(path) in ('.parquet', '.json') else 'line'} {number}"


def rows_of(path: Path) -> Rows:
    """Number and columns of each row; numbers count from 1. A broken row is a Fault in its place.

    MedtuneError: the file is not there, is of no format that is read, is cut short, or has no row.
    """
    reader = READERS.get(format_of(path) or "")
    if reader is None:
        raise MedtuneError(
            f"{path}: unknown format; accepted: {', '.join(READERS)}, each also with "
            f"{' or '.join(COMPRESSIONS)}"
        )
    empty = True
    with _opened(path) as file:
        for row in reader(path, file):
            empty = False
            yield row
    if empty:
        raise MedtuneError(f"{path}: holds no example; {EXPECTED[format_of(path) or '']}")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as raw:
            file: Any = raw
            if path.suffix == ".gz":
                file = gzip.GzipFile(fileobj=raw)
            elif path.suffix == ".zst":
                file = BufferedReader(cast(Any, pa.CompressedInputStream(raw, "zstd")))
            yield file
    except FileNotFoundError:
        raise MedtuneError(
            f"{path}: no such file; `dvc pull` fetches one that DVC tracks; no other is in a clone or in the "
            f"folder of an experiment: medtune add {path}"
        ) from None
    except MemoryError:
        raise MedtuneError(
            f"{path}: is larger than the memory; accepted: JSONL or Parquet, which are read piece by piece"
        ) from None
    except (EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if getattr(error, "strerror", None):
            raise MedtuneError(f"{path}: not readable: {error.strerror}") from None  # type: ignore[union-attr]
        kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix, "Parquet")
        raise MedtuneError(
            f"{path}: broken, cut short or no {kind} file: {_one_line(error)}; accepted: the whole file, "
            "named by what it is"
        ) from None


def _json_lines(path: Path, file: BinaryIO) -> Rows:
    for number, line in _lines(path, file):
        if isinstance(line, Fault):
            yield number, line
        elif line.strip():
            yield number, _json_row(line)


def _json(path: Path, file: BinaryIO) -> Rows:
    """A list of rows, an object of rows by their ids, or, as in many a .json file, one object a line."""
    content = file.read()
    _require_utf8(path, content)
    text = _decoded(content, path)
    del content
    first_line, _, others = text.strip().partition("\n")
    if others.strip() and isinstance(_json_row(first_line), dict):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, _json_row(line)
    elif text.strip():
        for number, row in enumerate(_list_of_rows(path, _parsed(path, text)), start=1):
            yield number, _without_repeats(row) if isinstance(row, dict) else _no_object()


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise MedtuneError(
            f"{path}, line {error.lineno}: not JSON: {_json_words(error)}; {EXPECTED['.json']}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise MedtuneError(f"{path}: {_beyond(error)}") from None


def _list_of_rows(path: Path, found: Any) -> list[Any]:
    if isinstance(found, _Repeating):
        raise MedtuneError(f"{path}: the key '{found.name}' stands there twice; accepted: each once")
    if isinstance(found, list):
        return found
    if isinstance(found, dict):
        lists = [key for key, value in found.items() if isinstance(value, list) and _are_rows(value)]
        wrapped = [key for key in _WRAPPED if isinstance(found.get(key), list)]
        if wrapped and len({*lists, *wrapped}) > 1:
            places = " and in ".join(dict.fromkeys([*wrapped, *lists]))
            raise MedtuneError(f"{path}: has rows in {places}; {EXPECTED['.json']}, a file for each")
        if wrapped:
            return list(found[wrapped[0]])
        if found and all(isinstance(row, dict) for row in found.values()):
            return [row if isinstance(row, _Repeating) else {"id": name} | row for name, row in found.items()]
        if found:
            return [found]
    raise MedtuneError(f"{path}: holds no example; {EXPECTED['.json']}")


def _are_rows(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _json_row(line: str) -> Fields | Fault:
    try:
        row = _DECODER.decode(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        if line.startswith("\ufeff"):
            return Fault(
                "broken", f"begins with a byte order mark: {_JOINED}; accepted: one at the very start"
            )
        return Fault("broken", f"not JSON: {_json_words(error)}; accepted: a JSON object")
    except (ValueError, RecursionError) as error:
        return Fault("broken", _beyond(error))
    return _without_repeats(row) if isinstance(row, dict) else _no_object()


class _Repeating(dict[str, Any]):
    """A JSON object with a field that stands there twice, of which Python would take the last in silence."""

    name = ""


def _object(pairs: list[tuple[str, Any]]) -> Fields:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    names = [name for name, _ in pairs]
    repeating = _Repeating(record)
    repeating.name = next(name for name in names if names.count(name) > 1)
    return repeating


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""json.loads would make one for each row."""


def _without_repeats(row: Fields) -> Fields | Fault:
    inside: list[Any] = [row]
    while inside:
        value = inside.pop()
        if isinstance(value, _Repeating):
            return Fault("broken", f"the field '{value.name}' stands there twice; accepted: each once")
        if isinstance(value, dict | list):
            inside += [
                part
                for part in (value.values() if isinstance(value, dict) else value)
                if part.__class__ is not str
            ]
    return row


def _no_object() -> Fault:
    return Fault("broken", 'no JSON object; accepted: {"question": "...?", "answer": "..."} or the like')


def _json_words(error: json.JSONDecodeError) -> str:
    return f"{error.msg.removesuffix(' at')} at character {error.colno}"


def _beyond(error: Exception) -> str:
    """What JSON may say but nobody can mean."""
    if isinstance(error, RecursionError):
        return "nested too deeply; accepted: texts, lists and mappings within each other a few times"
    return "a number of thousands of digits; accepted: numbers of up to 100, longer ones as text in quotes"


def _separated(delimiter: str) -> Callable[[Path, BinaryIO], Rows]:
    def read(path: Path, file: BinaryIO) -> Rows:
        csv.field_size_limit(LONGEST_ROW)
        reader = csv.reader(_text_lines(path, file), delimiter=delimiter, strict=True, skipinitialspace=True)
        # A quoted cell may go on over several lines: a row begins after the last one's.
        before = 0
        try:
            header = [name.strip() for name in next(reader, [])]
            _require_header(path, header, delimiter)
            before = reader.line_num
            for cells in reader:
                number, before = before + 1, reader.line_num
                if any(cells):
                    yield number, _row_of_cells(header, cells, delimiter)
        except csv.Error as error:
            raise MedtuneError(
                f"{path}, line {before + 1}: {_csv_words(error)}: {_quoting(delimiter)}"
            ) from None

    return read


def _csv_words(error: csv.Error) -> str:
    words = str(error)
    if "unexpected end of data" in words:
        return "a quote is opened and never closed"
    if "new-line character" in words:
        return "lines end with a carriage return alone (accepted: a line feed, or both), or a cell has one"
    if "field limit" in words:
        return f"a cell has over {LONGEST_ROW:,} characters, as if a quote is opened and never closed"
    return words


def _quoting(delimiter: str) -> str:
    return (
        f'a cell with {_DELIMITERS[delimiter]}, a quote or a line end in it is accepted in "double quotes", '
        "each quote in it twice"
    )


def _row_of_cells(header: list[str], cells: list[str], delimiter: str) -> Fields | Fault:
    if len(cells) != len(header):
        return Fault(
            "broken",
            f"has {len(cells)} cells, but the header names {len(header)} columns ({', '.join(header)}): "
            f"{_quoting(delimiter)}",
        )
    if cells[-1].strip() == header[-1] and [cell.strip(" \t\ufeff") for cell in cells] == header:
        return Fault("broken", f"is the header once more: {_JOINED}; accepted: one header, in line 1")
    return {name: cell or None for name, cell in zip(header, cells, strict=True)}


def _require_header(path: Path, header: list[str], delimiter: str) -> None:
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        what = f"the column '{twice[0]}' stands there twice" if twice[0] else "several columns have no name"
        raise MedtuneError(f"{path}, line 1: {what}; accepted: each column with a name of its own")
    if len(header) == 1:
        for other, words in _DELIMITERS.items():
            if other != delimiter and other in header[0]:
                raise MedtuneError(
                    f"{path}, line 1: a single column, {header[0]!r}, that looks separated by {words}; "
                    "accepted: commas in .csv, tabs in .tsv"
                )


def _parquet(path: Path, file: BinaryIO) -> Rows:
    whole = pa.BufferReader(file.read()) if path.suffix in COMPRESSIONS else pa.PythonFile(file)
    table = pq.ParquetFile(whole, page_checksum_verification=True)
    names = table.schema_arrow.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise MedtuneError(f"{path}: the column '{twice[0]}' is there twice; name one otherwise")
    number = 0
    for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
        for row in _parquet_rows(batch):
            number += 1
            yield number, row


def _parquet_rows(batch: pa.RecordBatch) -> list[Fields | Fault]:
    try:
        return _in_double(batch).to_pylist()
    except (ValueError, OverflowError) as error:
        # Such as text that is no UTF-8, or a time that Python has not: told of the row that has it.
        if len(batch) == 1:
            return [
                Fault("broken", f"not readable: {_one_line(error)}; accepted: text in UTF-8, numbers, lists")
            ]
        return [row for number in range(len(batch)) for row in _parquet_rows(batch.slice(number, 1))]


def _in_double(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Numbers of 32 bits by their shortest decimals: Python would make 0.10000000149011612 of 0.1."""
    for number, field in enumerate(batch.schema):
        if pa.types.is_float32(field.type):
            column = batch.column(number).cast(pa.string()).cast(pa.float64())
            batch = batch.set_column(number, field.name, column)
    return batch


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str | Fault]]:
    """Lines as text, each with its number; one that is none, or too long, is a Fault."""
    number = 0
    while line := file.readline(LONGEST_ROW):
        number += 1
        if number == 1:
            _require_utf8(path, line)
        if len(line) == LONGEST_ROW and not line.endswith(b"\n"):
            while (more := file.readline(LONGEST_ROW)) and not more.endswith(b"\n"):
                pass
            expected = EXPECTED[format_of(path) or ""]
            yield number, Fault("broken", f"has over {LONGEST_ROW:,} bytes; {expected}")
            continue
        if b"\0" in line:
            yield number, Fault("broken", f"has a NUL byte at byte {line.index(0) + 1}; accepted: UTF-8 text")
            continue
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, Fault("broken", f"not UTF-8 text at byte {error.start + 1}: save the file as UTF-8")


def _text_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    for number, line in _lines(path, file):
        if isinstance(line, Fault):
            raise MedtuneError(f"{path}, line {number}: {line.detail}")
        yield line


def _require_utf8(path: Path, start: bytes) -> None:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or re.match(rb"[ -~]\0|\0[ -~]", start):
        raise MedtuneError(f"{path}: UTF-16 text: save the file as UTF-8")
    kind = next((name for mark, name in _MAGIC.items() if start.startswith(mark)), None)
    if kind is not None:
        raise MedtuneError(
            f"{path}: not text but a {kind} file; accepted: names by what they are ({_SUFFIXES})"
        )


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MedtuneError(f"{path}, line {line}: not UTF-8 text: save the file as UTF-8") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip (or Excel)",
    b"PAR1": "Parquet",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_SUFFIXES = ".parquet, .gz, .zst; a zip, bzip2, xz or Excel file is to be unpacked or saved as text"
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars (|)"}
_JOINED = "two files, one put behind the other?"
READERS: dict[str, Callable[[Path, BinaryIO], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
}
EXPECTED = {
    ".jsonl": "expected one JSON object a line",
    ".ndjson": "expected one JSON object a line",
    ".json": "expected a list of JSON objects",
    ".csv": "expected a line of column names, then one row a line",
    ".tsv": "expected a line of column names, then one row a line",
    ".parquet": "expected a table with rows",
}
