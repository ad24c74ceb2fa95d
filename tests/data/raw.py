"""Files of questions, written and read back in a test."""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medtune.core.examples import Example
from medtune.data.faults import Rejects
from medtune.data.params import DataParams
from medtune.data.pool import Pool
from medtune.data.sources import read_sources

Row = Mapping[str, Any]


def params(path: str = "data/raw/mine.jsonl", on_error: str = "fail", **source: Any) -> DataParams:
    """The section `data` with one source."""
    return DataParams.of(
        {
            "data": {
                "sources": {"mine": {"path": path} | source},
                "seed": 1,
                "validation": 0.2,
                "test": 0.2,
                "near_duplicates": None,
                "on_error": on_error,
                "shuffle_choices": False,
            }
        }
    )


def read(path: Path, **source: Any) -> list[Example]:
    """The examples of a file or pattern, in its order."""
    return told(path, **source)[0]


def told(path: Path, **source: Any) -> tuple[list[Example], list[str]]:
    """The examples, and what is said of how they were read; a faulty row is an error."""
    chosen = params(str(path), **source)
    pool, rejects = Pool(chosen.seed), Rejects()
    notes = read_sources(chosen, pool, rejects)
    rejects.refuse("fail")
    return [pool[position] for position in range(len(pool))], notes


def one(row: Row, **source: Any) -> dict[str, Any]:
    """The example that a file with a single row gives, without its id, kind and group."""
    found = read(write(Path("data/raw/mine.jsonl"), [row]), **source)[0].model_dump(exclude_none=True)
    return {name: value for name, value in found.items() if name not in ("id", "kind", "group")}


def write(path: Path, rows: Iterable[Row]) -> Path:
    """Write a file in the format that its name says."""
    packed = path.suffix in (".gz", ".zst")
    suffix = path.with_suffix("").suffix if packed else path.suffix
    content = WRITERS[suffix](list(rows))
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.compress(content, "zstd", asbytes=True)
    path.write_bytes(content)
    return path


def lines(rows: Sequence[Row]) -> bytes:
    """JSONL."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _separated(rows: list[Row], delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: list[Row]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)
    return file.getvalue()


WRITERS = {
    ".jsonl": lines,
    ".ndjson": lines,
    ".json": lambda rows: json.dumps(rows).encode(),
    ".csv": lambda rows: _separated(rows, ","),
    ".tsv": lambda rows: _separated(rows, "\t"),
    ".parquet": _parquet,
}
