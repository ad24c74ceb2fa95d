"""`medtune check` on the repository's own parameters; tests/pipeline/test_reruns.py has it before a run."""

import json
from typing import Any

import pytest

from medtune.commands import check
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.data.params import DataParams
from tests.conftest import ROOT


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    # A copy that may be changed.
    copy: dict[str, Any] = json.loads(json.dumps(read_yaml(PARAMS_FILE)))
    return copy


def test_sizes_that_the_ontology_cannot_give_are_told(content: dict[str, Any]) -> None:
    content["data"]["kinds"]["organ_system"]["validation"] = 1_000_000
    (problem,) = check.check_project(content)
    assert problem.startswith("params.yaml: data.kinds.organ_system.validation asks for 1000000 examples; ")
    assert "that data.validation gives to this split" in problem


def test_questions_that_were_made_are_not_made_again(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DataParams] = []
    monkeypatch.setattr(check, "load_source", made.append)
    assert check.check_project(content) == []
    assert made == []


def test_a_kind_with_too_few_examples_to_be_shown_is_told(content: dict[str, Any]) -> None:
    content["answer"]["shots"] = 4
    content["data"]["kinds"]["medical_term"]["train"] = 3
    (problem,) = check.check_project(content)
    assert problem.startswith("params.yaml: answer.shots is 4, but data.kinds.medical_term.train is 3; ")


def test_every_problem_is_told_at_once(content: dict[str, Any]) -> None:
    content["finetune"]["lora"]["r"] = "sixteen"
    content["evaluate"]["set_kinds"] = ["organ_systems"]
    content["answer"]["launch"] = "dpp"
    assert [problem.partition(":")[2].split()[0] for problem in check.check_project(content)] == [
        "finetune.lora.r",
        "answer.launch",
        "evaluate.set_kinds",
    ]
