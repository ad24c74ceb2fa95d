"""A run on conversations with contexts that are shortened: every stage takes them, and the chain holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.core.examples import read_jsonl
from medtune.verify.chain import verify_chain
from tests.conftest import EARLIER
from tests.project import repro
from tests.tiny import build_tiny_base, create_tiny_project


def content(name: str) -> Any:
    return json.loads(Path(f"metrics/{name}.json").read_text())


def converse(source: Path) -> None:
    """Give every question that is asked in words earlier turns, and some of them a long context."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for row in rows:
        if "choices" not in row:
            row["messages"] = EARLIER
            row["context"] = f"Given {row['id']}. " * (26 if row["id"].endswith("4") else 2)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_conversations_are_learned_asked_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {
        "answer.max_new_tokens": 8,
        "answer.shots": 1,
        "finetune.epochs": 0.2,
        "finetune.max_length": 235,
        "finetune.too_long": "shorten",
        "prompt.system": "Answer.",
    }
    project = create_tiny_project(tmp_path / "medtune", build_tiny_base(tmp_path / "base"), params)
    monkeypatch.chdir(project)
    converse(Path("data/raw/questions.jsonl"))
    repro(project)

    details = content("training_details")
    prepared = read_jsonl(Path("data/prepared/train.jsonl")) + read_jsonl(
        Path("data/prepared/validation.jsonl")
    )
    assert details["examples_shortened"] == sum(len(one.context or "") > 200 for one in prepared) > 0
    assert details["examples_left_out"] == 0
    assert details["settings"]["assistant_turns"] == "all"
    rows = content("evaluation_results")["results"]
    assert {json.dumps(row.get("messages")) for row in rows} == {json.dumps(EARLIER), "null"}
    assert not [link for link in verify_chain() if link.broken]
