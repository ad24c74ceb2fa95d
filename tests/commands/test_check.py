"""`medtune check` on the repository's own parameters; tests/pipeline/test_reruns.py has it before a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.commands import check
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.data.params import DataParams
from tests.conftest import ROOT, example


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    # A copy that may be changed.
    copy: dict[str, Any] = json.loads(json.dumps(read_yaml(PARAMS_FILE)))
    return copy


def test_sizes_that_the_ontology_cannot_give_are_told(content: dict[str, Any]) -> None:
    content["data"]["kinds"]["organ_system"]["validation"] = 1_000_000
    (problem,) = check.check_project(content)
    assert problem.startswith(
        "params.yaml: data.kinds.organ_system.validation asks for 1000000 examples, of which "
    )
    assert "There are: organ_system " in problem


def test_questions_that_were_made_are_not_made_again(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DataParams] = []
    monkeypatch.setattr(check, "prepare", made.append)
    assert check.check_project(content) == []
    assert made == []


def test_a_kind_with_too_few_examples_to_be_shown_is_told(content: dict[str, Any]) -> None:
    content["answer"]["shots"] = 4
    content["data"]["kinds"]["medical_term"]["train"] = 3
    (problem,) = check.check_project(content)
    assert problem.startswith("params.yaml: answer.shots is 4, but data.kinds.medical_term.train is 3; ")


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An adapter is there that training would replace, and its questions are to be counted in tokens."""
    monkeypatch.setattr(check, "ADAPTER", tmp_path / "adapter")
    (tmp_path / "adapter").touch()
    examples = [example(id=str(number), question="Is it fever? " * number) for number in range(1, 11)]
    splits = {"train": examples, "validation": examples[:2], "test": examples[:2]}
    monkeypatch.setattr(check.Project, "splits", splits)
    monkeypatch.setattr(check, "_is_recorded", lambda stage, *_: stage != "finetune")


@pytest.mark.usefixtures("unrecorded")
def test_how_many_tokens_the_examples_have_is_told(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "read_yaml", lambda _: content)
    # Whether the remote is there already decides nothing here.
    monkeypatch.setattr(check, "_remote_notes", lambda: [])
    train, validation, verdict = check.describe_check().splitlines()
    assert train.startswith("data/prepared/train.jsonl: tokens: median ")
    assert "how many fit in 128: 10" in train
    assert train.endswith("; 0 are left out, 0 shortened")
    assert "how many fit in 128: 2" in validation
    assert verdict.endswith("nothing is wrong; next: dvc repro")


@pytest.mark.usefixtures("unrecorded")
def test_examples_that_are_too_long_are_told_of_every_split(content: dict[str, Any]) -> None:
    content["finetune"]["max_length"] = 60
    train, validation = check.check_project(content)
    assert train.startswith("data/prepared/train.jsonl: ")
    assert validation.startswith("data/prepared/validation.jsonl: ")
    for problem in (train, validation):
        assert "examples have more tokens than finetune.max_length (60), first '" in problem


def test_every_problem_is_told_at_once(content: dict[str, Any]) -> None:
    content["finetune"]["lora"]["r"] = "sixteen"
    content["evaluate"]["set_kinds"] = ["organ_systems"]
    content["answer"]["launch"] = "dpp"
    assert [problem.partition(":")[2].split()[0] for problem in check.check_project(content)] == [
        "finetune.lora.r",
        "answer.launch",
        "evaluate.set_kinds",
    ]
