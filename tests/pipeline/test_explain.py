"""`medtune explain` on a pipeline with a tiny model: what is listed, and what a few real steps say of it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import edit_params
from tests.project import attempt, commit, run
from tests.tiny import build_tiny_base, create_tiny_project

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
QUESTIONS = Path("data/raw/questions.jsonl")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit whose questions are in git. Copy it; leave it as it is."""
    folder = tmp_path_factory.mktemp("explain")
    base = build_tiny_base(folder / "base")
    made = create_tiny_project(folder / "medtune", base, {}, prepared=False)
    run("git", "add", "--force", str(QUESTIONS), cwd=made)
    commit(made, "Sums")
    return made


@pytest.fixture
def here(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "copy", symlinks=True))


def explain(folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    """What is said of each difference between the commit and what lies there now, by its name."""
    env = {"PYTHONPATH": str(folder)}
    found = json.loads(run(*MEDTUNE, "explain", "HEAD", "--json", *options, cwd=folder, env=env))
    return {"": found} | {one["name"]: one for one in found["differences"]}


def test_everything_that_differs_is_listed_and_nothing_else(here: Path) -> None:
    edit_params(here / "params.yaml", {"finetune.lora.r": 4, "diff.tolerated_loss.accuracy": 0.1})
    edits = {
        "medtune/train/loss.py": "\nUNUSED = 1\n",
        "medtune/train/trainer.py": "\n# A comment changes nothing.\n",
        "medtune/commands/diff.py": "\nUNUSED = 1\n",
        "docs/data.md": "\nMore words.\n",
    }
    for name, more in edits.items():
        (here / name).write_text((here / name).read_text() + more)
    lock = here / "requirements/runtime.txt"
    lock.write_text(lock.read_text().replace("peft==", "peft==9.").replace("psutil==", "psutil==9."))
    lines = (here / QUESTIONS).read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace("What is 3", "What was 3")
    lines[5], lines[6] = lines[6], lines[5]
    del lines[10]
    lines.append(lines[0].replace('"id": "0"', '"id": "900"').replace("What is 0", "What is none"))
    (here / QUESTIONS).write_text("".join(lines))

    found = explain(here, "--no-run")
    rows = {f"{QUESTIONS}, {what}" for what in ("added", "removed", "edited", "reordered")}
    listed = {"finetune.lora.r", "diff.tolerated_loss.accuracy", "medtune/train/loss.py", "peft", "psutil"}
    assert set(found) - {""} == listed | rows
    assert found[f"{QUESTIONS}, added"]["ids"] == {
        "added": ["900"],
        "removed": [],
        "edited": [],
        "reordered": False,
    }
    assert [found[f"{QUESTIONS}, {what}"]["ids"][what] for what in ("removed", "edited")] == [["10"], ["3"]]
    assert found["medtune/train/loss.py"]["stages"] == ["finetune"]
    assert found["psutil"]["conclusion"] == "changes nothing: no stage reads it"
    assert found["diff.tolerated_loss.accuracy"]["conclusion"] == "changes nothing: no stage reads it"
    # Nothing was run: no word of what it changes.
    assert all(
        str(found[name]["conclusion"]).startswith("not run: ") for name in rows | {"finetune.lora.r", "peft"}
    )


@pytest.mark.slow
def test_a_few_steps_say_which_parameter_changed_the_result(here: Path) -> None:
    """Each alone and taken away: the one truly, by losses of its own trial, the other by rounding."""
    edit_params(here / "params.yaml", {"finetune.tokens_per_pass": 100, "finetune.learning_rate": 0.02})
    before = run("git", "status", "--porcelain", cwd=here)
    found = explain(here, "--steps", "3", "--answers", "4")
    assert (found[""]["steps"], found[""]["planned_steps"]) == (3, 20)
    for name, verdict in (("tokens_per_pass", "within rounding"), ("learning_rate", "truly")):
        sides = [found[f"finetune.{name}"][side] for side in ("alone", "taken_away")]
        assert [side["verdict"] for side in sides] == [verdict, verdict]
        assert all(side["sizes"]["loss"] > 0 and side["sizes"]["adapter"] > 0 for side in sides)
    assert found[""]["together"]["verdict"] == "truly" and not found[""]["interaction"]
    # Not in the workspace, not in git.
    assert run("git", "status", "--porcelain", cwd=here) == before


def test_no_revision_of_that_name_is_one_line(here: Path) -> None:
    failed = attempt(*MEDTUNE, "explain", "nowhere", cwd=here, env={"PYTHONPATH": str(here)})
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: 'nowhere' is no commit, branch, tag or experiment here")
    assert failed.stderr.count("\n") == 1


def test_a_commit_without_its_questions_is_not_the_same_as_one_with_them(here: Path) -> None:
    """The commit before named a file that nobody had versioned: both were said to give the same bytes."""
    env = {"PYTHONPATH": str(here)}
    found = json.loads(run(*MEDTUNE, "explain", "HEAD~1", "HEAD", "--json", "--no-run", cwd=here, env=env))
    told = {one["name"]: one["conclusion"] for one in found["differences"]}
    assert told["questions"] == f"not run: {QUESTIONS} of HEAD~1 is versioned nowhere"
    assert told[str(QUESTIONS)].startswith("not run")
