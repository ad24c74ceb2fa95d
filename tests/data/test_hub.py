"""Datasets of the hub: the rows that `datasets` reads, pinned, once fetched without a network, no script.

Nothing of `huggingface_hub` and `datasets` is replaced: they talk to a stand-in on loopback.
"""

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtune.core.hashing import content_sha256, file_sha256
from tests.conftest import ROOT
from tests.hub import Hub, Repository, model_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "f" * 40
TOKEN = "hf_ofTheReader"
NOWHERE = "http://127.0.0.1:9"
OURS = """
import json, sys
from medtune.core.errors import MedtuneError
from medtune.data.files import rows_of
from medtune.data.hub import fetch, hub_files
from medtune.data.params import SourceParams

for fields in json.loads(sys.argv[1]):
    try:
        source = SourceParams.model_validate(fields)
        files = (hub_files if source.sha256 else fetch)("mine", source).files
        rows = {str(split): [row for file in files[split] for _, row in rows_of(file)] for split in files}
        print(json.dumps(rows))
    except MedtuneError as error:
        print(json.dumps(str(error)))
"""
THEIRS = """
import json, sys
from datasets import load_dataset

for fields in json.loads(sys.argv[1]):
    found = load_dataset(
        fields["path"], fields.get("config"), revision=fields["revision"], split=fields.get("split", "train")
    )
    print(json.dumps({"None": list(found)}))
"""
UNPINNED = """
import json, sys
from medtune.data.hub import hub_files
from medtune.data.params import SourceParams
from medtune.core.errors import run

run(lambda: hub_files("mine", SourceParams.model_validate(json.loads(sys.argv[1]))))
"""
LEFT_OUT = """
import json, sys
from medtune.data.params import DataParams
from medtune.data.preparation import prepare

for source in json.loads(sys.argv[1]):
    data = {"sources": {"mine": source}, "seed": 1, "validation": 0.2, "test": 0.2, "on_error": "drop"}
    rejects = prepare(DataParams.of({"data": data})).rejects
    print(json.dumps([f"{row.place}: {row.detail}" for row in rejects]))
"""


@dataclass
class Reader:
    """Somebody with an empty cache who asks the stand-in for a dataset."""

    hub: Hub
    home: Path

    def run(self, code: str, *cases: dict[str, Any], **env: str) -> list[Any]:
        """What a process of its own prints for each case: rows by split, or an error."""
        pinned = [{"path": "org/questions", "revision": COMMIT} | case for case in cases]
        ended = self.end(code, json.dumps(pinned), **env)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def end(self, code: str, argument: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.hub.requests.clear()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, argument]
        return subprocess.run(command, env=inherited | settings | env, capture_output=True, text=True)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with model_hub() as hub:
        hub.tokens.add(TOKEN)
        yield Reader(hub, tmp_path / "home")


@pytest.fixture
def folder(reader: Reader, tmp_path: Path) -> Path:
    """The folder of the dataset org/questions."""
    folder = tmp_path / "published"
    folder.mkdir()
    reader.hub.repositories["datasets/org/questions"] = Repository(folder, COMMIT)
    return folder


def some_rows(name: str, count: int = 2) -> list[dict[str, Any]]:
    return [
        {"question": f"What is {name} {number}?", "answer": f"A {name}, \n so."} for number in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


CARD = """---
configs:
- config_name: labelled
  data_files:
  - split: train
    path: labelled/train-*
  - split: test
    path: labelled/held[[]out[]].SUFFIX
- config_name: other
  data_files: other/*.SUFFIX
---
# Questions
"""


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_rows_are_those_that_datasets_reads(reader: Reader, folder: Path, suffix: str) -> None:
    (folder / "README.md").write_text(CARD.replace("SUFFIX", suffix))
    for name in ("labelled/train-1", "labelled/train-0", "labelled/held[out]", "other/first", "unused/train"):
        write(folder / f"{name}.{suffix}", some_rows(name))
    cases = [
        {"config": "labelled", "split": "train"},
        {"config": "labelled", "split": "test"},
        {"config": "other"},
    ]
    found = reader.run(OURS, *cases)
    fetched = {Path(name).name.partition(".")[0] for name in reader.hub.fetched()}
    assert fetched == {"README", "train-1", "train-0", "held[out]", "first"}
    assert found == reader.run(THEIRS, *cases)
    assert [len(rows["None"]) for rows in found] == [4, 2, 2]


def test_without_a_card_files_and_splits_are_told_by_their_names(reader: Reader, folder: Path) -> None:
    for name in ("phrases_no_exclude_train.jsonl", "phrases_no_exclude_test.jsonl"):
        write(folder / name, some_rows(name))
    cases = [{"split": "train"}, {"split": "test"}]
    found = reader.run(OURS, *cases, {"splits": {"train": "train", "test": "test"}})
    assert found[:2] == reader.run(THEIRS, *cases)
    assert found[2] == {"train": found[0]["None"], "test": found[1]["None"]}


def test_nested_types_and_compressed_lines_are_read_as_datasets_reads_them(
    reader: Reader, folder: Path
) -> None:
    nested = [{"context": {"contexts": ["One.", "Two."], "labels": ["A"]}, "cop": 2, "choices": ["a", "b"]}]
    lines = "".join(json.dumps(row) + "\n" for row in nested)
    write(folder / "train.parquet", nested)
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    # Both formats in one dataset: the library takes the more frequent one, and only that.
    write(folder / "train-2.parquet", nested)
    [found] = reader.run(OURS, {})
    assert [found] == reader.run(THEIRS, {})
    assert found == {"None": nested * 2}
    for path in folder.glob("*.parquet"):
        path.unlink()
    reader.hub.repositories["datasets/org/questions"].commit = OTHER_COMMIT
    [found] = reader.run(OURS, {"revision": OTHER_COMMIT})
    assert [found] == reader.run(THEIRS, {"revision": OTHER_COMMIT})
    assert found == {"None": nested}


def test_what_is_in_the_cache_needs_no_network(reader: Reader, folder: Path) -> None:
    for name in ("train", "test", "validation"):
        write(folder / f"{name}.parquet", some_rows(name))
    first = reader.run(OURS, {"split": "train"})
    assert reader.hub.fetched() == {"train.parquet"}
    for env in ({}, {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}):
        assert reader.run(OURS, {"split": "train"}, **env) == first
        assert reader.hub.requests == []
    [refused] = reader.run(OURS, {"split": "test"}, HF_HUB_OFFLINE="1")
    assert "is not whole in the cache" in refused
    assert "HF_HUB_OFFLINE forbids fetching it" in refused
    [refused] = reader.run(OURS, {"split": "test"}, HF_ENDPOINT=NOWHERE)
    assert f"{NOWHERE} cannot be reached: check the network" in refused


def test_what_is_left_out_is_told_without_the_folder_of_the_cache(reader: Reader, folder: Path) -> None:
    rows = some_rows("train", 20)
    write(folder / "data" / "train.jsonl", [*rows, rows[0], {"question": "What is nothing?", "answer": ""}])
    pinned = {"sha256": file_sha256(folder / "data" / "train.jsonl"), "split": "train"}
    [found] = reader.run(LEFT_OUT, pinned)
    assert [line.partition(": ")[0] for line in found] == [
        "org/questions/data/train.jsonl, line 22",
        "org/questions/data/train.jsonl, line 21",
    ]


def test_other_files_than_the_pinned_ones_are_refused(reader: Reader, folder: Path) -> None:
    for name in ("train", "test"):
        write(folder / f"{name}.jsonl", some_rows(name))
    both = {"splits": {"train": "train", "test": "test"}}
    one = file_sha256(folder / "train.jsonl")
    several = content_sha256(folder.iterdir(), folder)
    cases: list[dict[str, Any]] = [
        {"split": "train", "sha256": one},
        both | {"sha256": several},
        both | {"sha256": one},
    ]
    found = reader.run(OURS, *cases)
    assert [list(rows) for rows in found[:2]] == [["None"], ["train", "test"]]
    assert f"the sha256 of its files is {several}, but data.sources.mine.sha256" in found[2]
    source = {"path": "org/questions", "revision": COMMIT, "split": "train"}
    missing = reader.end(UNPINNED, json.dumps(source)).stderr
    assert f"data.sources.mine.sha256 is missing; for org/questions at {COMMIT} it is {one}" in missing
    floating = reader.end(UNPINNED, json.dumps(source | {"revision": None})).stderr
    assert "data.sources.mine.revision must be the full commit hash" in floating
    assert all("`medtune pin mine` writes" in message for message in (found[2], missing, floating))


def test_a_configuration_or_split_that_is_not_there_is_told_with_those_that_are(
    reader: Reader, folder: Path
) -> None:
    (folder / "README.md").write_text(CARD.replace("SUFFIX", "jsonl"))
    for name in ("labelled/train-0", "labelled/held[out]", "other/first"):
        write(folder / f"{name}.jsonl", some_rows(name))
    found = reader.run(
        OURS,
        {"split": "train"},
        {"config": "labeled", "split": "train"},
        {"config": "labelled"},
        {"config": "labelled", "splits": {"train": "train", "test": "validation"}},
    )
    key = "params.yaml: data.sources.mine"
    assert found[0] == f"{key}.config is missing: org/questions has several; accepted: labelled, other"
    assert found[1].startswith(
        f"{key}.config is 'labeled', which org/questions does not have; did you mean 'la"
    )
    assert found[1].endswith("It has labelled, other")
    assert found[2].startswith(f"{key}.split is missing: org/questions has train, test; set one of them")
    assert found[3].startswith(f"{key}.splits.test is 'validation', a split that org/questions does not have")
    assert found[3].endswith("in the configuration labelled; accepted: train, test")


@pytest.mark.parametrize(
    ("files", "card", "expected"),
    [
        (
            ["shard-0.tar", "shard-1.tar"],
            "",
            "shard-0.tar is of a format that is not read; accepted: .jsonl,",
        ),
        (["train/one.png"], "", "train/one.png is of a format that is not read"),
        (["data-00000-of-00001.arrow"], "", "data-00000-of-00001.arrow is of a format that is not read"),
        (["train.jsonl.bz2"], "", "train.jsonl.bz2 is of a format that is not read"),
        (["notes.weird"], "", "finds no data files of a known format there"),
        (["train.zip"], "", "finds no data files of a known format there"),
        (
            ["train.jsonl", "questions.py"],
            "",
            "is made by a script (questions.py), and what is downloaded is not",
        ),
        (["train.csv"], "configs: [{config_name: a, data_files: '*.csv', sep: ';'}]", "read with sep: ';'"),
        (
            ["train.json"],
            "configs: [{config_name: a, data_files: '*', field: data}]",
            "read with field: 'data'",
        ),
        (
            ["train.jsonl"],
            "configs: [{config_name: a, data_files: 'NOWHERE/a.jsonl'}]",
            "its card names data elsewhere (http://127.0.0.1:9/a.jsonl), which its commit does not pin",
        ),
        (
            ["train.jsonl"],
            "configs: [{config_name: a, data_files: '/etc/hostname'}]",
            "/etc/hostname",
        ),
    ],
)
def test_what_cannot_be_read_as_it_is_is_refused_by_name(
    reader: Reader, folder: Path, files: list[str], card: str, expected: str
) -> None:
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    if card:
        (folder / "README.md").write_text(f"---\n{card}\n---\n".replace("NOWHERE", NOWHERE))
    [refused] = reader.run(OURS, {})
    assert expected in refused
    assert COMMIT in refused
    assert reader.hub.fetched() <= {"README.md"}


def test_a_refusal_of_the_hub_says_what_to_do(reader: Reader, folder: Path) -> None:
    write(folder / "train.jsonl", some_rows("train"))
    reader.hub.repositories["datasets/org/questions"].readers = {TOKEN}
    page = f"{reader.hub.url}/datasets/org/questions"
    gated, other, absent = reader.run(OURS, {}, {"revision": OTHER_COMMIT}, {"path": "org/none"})
    assert gated.startswith(f"org/questions is gated: accept its licence at {page}, make a token at")
    assert gated.endswith("set HF_TOKEN to it")
    assert (
        f"data.sources.mine.revision {OTHER_COMMIT} is no commit of org/questions ({page}/commits)" in other
    )
    assert "`medtune pin mine` writes the present one" in other
    assert "data.sources.mine.path 'org/none' is not on the hub, or is private" in absent
    [rows] = reader.run(OURS, {}, HF_TOKEN=TOKEN)
    assert rows == {"None": some_rows("train")}
