"""The report of a pull request says whether it is better, worse or unchanged, and of which run."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtune.commands.diff import make_diff
from medtune.commands.pull_request import MARKER, MOST, RUN_HERE, _within, report, verdict
from tests.conftest import ROOT, edit_params
from tests.project import attempt, commit, run

DIGEST = """\
import json
from pathlib import Path
from medtune.run.code import digest

Path("digests").mkdir(exist_ok=True)
found = digest("stages.evaluate", quantised=False, root=Path.cwd())
Path("digests/evaluate.json").write_text(json.dumps(found))
"""
EVALUATE = """\
import json
from pathlib import Path
from medtune.core.yaml_file import read_yaml

rank = read_yaml(Path("params.yaml"))["finetune"]["lora"]["r"]
answers = ["@no", "yes"]
Path("metrics").mkdir(exist_ok=True)
rows = [
    {"id": f"{kind}{number}", "kind": kind, "question": "@all <b>?</b>",
     "ground_truth": answers[number % 2], "prediction": answers[(number + (number >= rank)) % 2]}
    for kind in ("closed", "*open*") for number in range(30)
]
Path("metrics/evaluation_results.json").write_text(json.dumps({"results": rows}))
Path("metrics/evaluation.json").write_text(json.dumps({"accuracy": rank / 30}))
"""
PIPELINE = """\
stages:
  code:
    cmd: python tools/digest.py
    deps: [medtune, stages, requirements/runtime.txt]
    outs:
      - digests/evaluate.json: {cache: false, persist: true}
  evaluate:
    cmd: python tools/evaluate.py
    deps: [digests/evaluate.json]
    params: [finetune]
    outs: [metrics/evaluation_results.json]
    metrics:
      - metrics/evaluation.json: {cache: false}
"""


def set_rank(folder: Path, rank: int) -> None:
    edit_params(folder / "params.yaml", {"finetune.lora.r": rank})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository's code with a quick pipeline, in which the rank is how much is right: 15 of 30."""
    folder = tmp_path_factory.mktemp("pull-request") / "medtune"
    for name in ("medtune", "stages", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy2(ROOT / name, folder / name)
    for name, text in (("digest.py", DIGEST), ("evaluate.py", EVALUATE), ("../dvc.yaml", PIPELINE)):
        (folder / "tools").mkdir(exist_ok=True)
        (folder / "tools" / name).write_text(text)
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    set_rank(folder, 15)
    run("dvc", "repro", "--quiet", cwd=folder)
    commit(folder, "Rank 15")
    return folder


@pytest.fixture
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A branch of it, to be edited."""
    monkeypatch.chdir(repository)
    run("git", "checkout", "--quiet", "-b", "branch", cwd=repository)
    yield repository
    run("git", "checkout", "--quiet", "--force", "main", cwd=repository)
    run("git", "branch", "--quiet", "-D", "branch", cwd=repository)
    run("dvc", "checkout", "--quiet", "--force", cwd=repository)


def made_with(folder: Path, rank: int) -> None:
    """A commit of the branch, with its run."""
    set_rank(folder, rank)
    run("dvc", "repro", "--quiet", cwd=folder)
    commit(folder, f"Rank {rank}")


def test_make_says_that_a_worse_run_is_worse_and_fails(here: Path, tmp_path: Path) -> None:
    made_with(here, 5)
    target = tmp_path / "made/report.md"
    # The packages are installed: it is a test.
    asked = ("pull-request-report", "BASE=main", f"REPORT={target}")
    environment = {"PYTHONPATH": str(here), "MAKEFLAGS": "", "MAKELEVEL": ""}
    made = attempt("make", "--old-file=install", *asked, cwd=here, env=environment)
    assert made.returncode != 0
    assert "error: worse: exact answers: -33.3 points; " in made.stderr
    text = target.read_text()
    assert text.splitlines()[:2] == [MARKER, "### medtune: worse"]
    assert "Worse beyond chance: exact answers (0.500 to 0.167); " in text
    assert "lost: 20" in text
    assert "| metrics/evaluation.json | accuracy | 0.5 | 0.16667 | -0.33333 |" in " ".join(text.split())
    # What stands in questions and kinds acts nowhere.
    assert "@" not in text and "<b>" not in text and "*open*" not in text
    assert "&#42;open&#42;, B: said &#64;no " in text
    assert RUN_HERE not in text and "Not as committed" not in text


def test_a_better_run_passes(here: Path) -> None:
    made_with(here, 27)
    found = report("main")
    assert found.failed is None
    assert found.text.splitlines()[1] == "### medtune: better"
    assert "Better beyond chance: exact answers (0.500 to 0.900); " in found.text


def test_an_unchanged_run_is_called_so_and_passes(here: Path) -> None:
    (here / "notes.txt").write_text("No parameter")
    commit(here, "A note")
    found = report("main")
    assert found.failed is None
    assert found.text.splitlines()[1] == "### medtune: unchanged"
    assert "Every answer to 60 questions is the same." in found.text
    assert "The headline metrics are the same." in found.text


def test_a_loss_that_the_branch_lets_itself_pass_is_said(here: Path) -> None:
    loss = {"accuracy": 0.5, "token_f1": 0.5, "chrf": 0.5}
    edit_params(here / "params.yaml", {"diff.tolerated_loss": loss})
    made_with(here, 5)
    found = report("main")
    assert found.failed is None
    assert found.text.splitlines()[1] == "### medtune: worse, within what `diff.tolerated_loss` lets pass"


def test_compared_is_where_the_branch_parts_from_its_base_not_what_came_there_since(here: Path) -> None:
    run("git", "checkout", "--quiet", "-b", "later", "main", cwd=here)
    made_with(here, 27)
    run("git", "checkout", "--quiet", "branch", cwd=here)
    run("dvc", "checkout", "--quiet", cwd=here)
    assert report("later").text.splitlines()[1] == "### medtune: unchanged"
    run("git", "branch", "--quiet", "-D", "later", cwd=here)


def test_what_was_committed_without_a_run_is_said_and_such_a_base_is_run_here(here: Path) -> None:
    set_rank(here, 5)
    commit(here, "Not run")
    assert "### medtune: not compared" in report("main").text
    run("dvc", "repro", "--quiet", cwd=here)
    found = report("main")
    assert found.text.splitlines()[1] == "### medtune: worse"
    assert "Not as committed: `dvc.lock`, `metrics/evaluation.json`." in found.text
    run("git", "checkout", "--quiet", ".", cwd=here)
    run("git", "checkout", "--quiet", "-b", "later", cwd=here)
    made_with(here, 25)
    found = report("branch")
    run("git", "checkout", "--quiet", "branch", cwd=here)
    run("git", "branch", "--quiet", "-D", "later", cwd=here)
    assert found.text.splitlines()[1] == "### medtune: better"
    assert "exact answers (0.167 to 0.833)" in found.text
    assert f"The base: {RUN_HERE}, as " in found.text and "is not of its finetune" in found.text


def test_a_base_whose_predictions_are_nowhere_is_run_here(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_with(here, 25)
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(here), str(clone), cwd=tmp_path)
    run("dvc", "repro", "--quiet", cwd=clone)
    monkeypatch.chdir(clone)
    found = report("origin/main")
    assert found.text.splitlines()[1] == "### medtune: better", found.text
    assert "exact answers (0.500 to 0.833)" in found.text
    assert f"The base: {RUN_HERE}, as " in found.text and "nor in the cache or the remote" in found.text
    assert run("git", "status", "--porcelain", cwd=clone) == ""


def test_where_there_is_nothing_to_compare_the_report_says_why_and_fails(here: Path) -> None:
    (here / "metrics/evaluation_results.json").unlink()
    found = report("main")
    assert found.failed is not None and found.failed.startswith("not compared: workspace: ")
    assert found.text.splitlines()[:2] == [MARKER, "### medtune: not compared"]


def test_a_comment_has_room_and_its_verdict_stands_above_where_it_is_cut() -> None:
    short = _within([MARKER, "### medtune: worse", "x" * 70_000])
    assert short.startswith(f"{MARKER}\n### medtune: worse\n")
    assert MOST < len(short) < 65_536
    assert "Cut off here" in short


def test_a_base_that_is_no_commit_is_one_line(here: Path) -> None:
    command = (sys.executable, "-m", "medtune.commands.pull_request", "no-such")
    failed = attempt(*command, cwd=here, env={"PYTHONPATH": str(here)})
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: git merge-base: ") and failed.stderr.count("\n") == 1


def test_a_branch_that_asks_fewer_questions_is_not_simply_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten questions the nine that it may have lost are gone: the title said `unchanged`, and no more."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"q{i}", "question": f"{i}?", "ground_truth": "a", "prediction": "a"} for i in range(10)]
    for name, kept in (("base.jsonl", rows), ("branch.jsonl", rows[:1])):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in kept))
    words, sentences = verdict(make_diff("base.jsonl", "branch.jsonl", common=True))
    assert words == "unchanged, in the 1 of 10 questions of the base that are compared"
    assert sentences[-1].startswith("Left out: 9 questions that the base alone asks, 0 that this alone asks")
    assert verdict(make_diff("base.jsonl", "base.jsonl"))[0] == "unchanged"
