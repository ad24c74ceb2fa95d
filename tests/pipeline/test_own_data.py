"""A user's own file through the whole pipeline: versioned by DVC, the same for a colleague, safe to edit."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import edit_params
from tests.project import STAGES, attempt, commit, create_project, repro, run
from tests.tiny import TINY, build_tiny_base

pytestmark = pytest.mark.slow

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
MINE, THEIRS, OTHER = "data/raw/mine.jsonl", "data/raw/theirs.jsonl", "data/raw/other.jsonl"
SMALL = {
    "compute.threads": 1,
    "finetune.precision": "float32",
    "finetune.batch_size": 16,
    "finetune.evaluate_every": 2,
    "finetune.learning_rate": TINY["finetune.learning_rate"],
    "answer.max_new_tokens": 4,
}


def rows(first: int = 0) -> str:
    return "".join(
        json.dumps({"question": f"What is {i} + {i * i}?", "answer": f"{i + i * i}"}) + "\n"
        for i in range(first, first + 48)
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed run of a tiny model on a file that `medtune add` brought and one that DVC imported."""
    folder = tmp_path_factory.mktemp("own")
    base = build_tiny_base(folder / "base")
    project = create_project(folder / "medtune", {**SMALL, **base})
    mine, theirs = folder / "mine.jsonl", folder / "theirs.jsonl"
    mine.write_text(rows())
    theirs.write_text(rows(first=100))
    run(*MEDTUNE, "add", str(mine), cwd=project)
    run("dvc", "import-url", str(theirs), THEIRS, cwd=project)
    imported = (project / f"{THEIRS}.dvc").read_bytes()
    run(*MEDTUNE, "add", THEIRS, cwd=project)
    assert (project / f"{THEIRS}.dvc").read_bytes() == imported
    assert repro(project) == set(STAGES)
    commit(project, "Mine and theirs")
    # Whoever gets the project has these files by DVC alone.
    mine.unlink()
    theirs.unlink()
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "medtune"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


def test_a_colleague_has_the_same_and_nothing_to_run_whatever_else_lies_there(project: Path) -> None:
    (project / "data/raw/notes.txt").write_text("Not a source.\n")
    (project / OTHER).write_text(rows(first=200))
    run("dvc", "add", OTHER, cwd=project)
    tracked = project / f"{MINE}.dvc"
    tracked.write_text(tracked.read_text() + "desc: Sums of mine\n")
    assert repro(project) == set()
    commit(project, "More files")
    run("dvc", "push", cwd=project)

    # The default remote is a sibling folder of the repository: the clone goes beside it too.
    clone = project.parent / "clone"
    run("git", "clone", "--quiet", str(project), str(clone), cwd=project.parent)
    run("dvc", "pull", cwd=clone)
    for name, first in ((MINE, 0), (THEIRS, 100), (OTHER, 200)):
        assert (clone / name).read_text() == rows(first)
    assert repro(clone) == set()
    assert "Data and pipelines are up to date." in run("dvc", "status", cwd=clone)
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    run(*MEDTUNE, "verify", cwd=clone)


def test_experiments_in_folders_of_their_own_have_the_files(project: Path) -> None:
    run("dvc", "exp", "run", "--temp", "--name", "apart", "-S", "evaluate.partial_f1=0.3", cwd=project)
    half = ("-S", "+data.sources.mine.share=0.5")
    run("dvc", "exp", "run", "--queue", "--name", "later", *half, "prepare", cwd=project)
    run("dvc", "exp", "run", "--run-all", cwd=project)
    # Before any commit too.
    (project / OTHER).write_text(rows(first=200))
    run(*MEDTUNE, "add", OTHER, cwd=project)
    run("dvc", "exp", "run", "--temp", "--name", "new", "prepare", cwd=project)

    refs = run("git", "for-each-ref", "--format=%(refname)", "refs/exps", cwd=project).split()
    counts = {}
    for name in ("apart", "later", "new"):
        ref = next(ref for ref in refs if ref.endswith(f"/{name}"))
        counts[name] = json.loads(run("git", "show", f"{ref}:metrics/data.json", cwd=project))
    here = json.loads((project / "metrics/data.json").read_text())
    assert counts["apart"] == here != counts["later"]
    assert counts["new"]["sources"].keys() - here["sources"].keys() == {"other"}


def test_an_experiment_on_a_file_that_only_its_owner_has_says_what_to_do(project: Path) -> None:
    (project / OTHER).write_text(rows(first=200))
    source = f"data.sources.mine.path={OTHER}"
    said = attempt("dvc", "exp", "run", "--temp", "-S", source, cwd=project)
    assert said.returncode != 0
    assert f"error: dvc.yaml: code does not depend on {OTHER}, which params.yaml names" in said.stderr
    assert f": medtune add {OTHER}\n" in said.stderr and "Traceback" not in said.stderr

    edit_params(project / "params.yaml", {"data.sources.mine.path": OTHER})
    pipeline = project / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace(MINE, OTHER))
    warning = f"warning: {OTHER} is versioned nowhere, so nobody else can run this: medtune add {OTHER}\n"
    assert warning in run(*MEDTUNE, "check", cwd=project)
    # Of a dependency of `code` that is not there DVC speaks itself, before any stage can.
    said = attempt("dvc", "exp", "run", "--temp", cwd=project)
    assert "No such file" in said.stderr.splitlines()[-1] and OTHER in said.stderr.splitlines()[-1]


def test_a_file_that_is_not_there_is_a_line_for_check(project: Path) -> None:
    (project / MINE).unlink()
    said = attempt(*MEDTUNE, "check", cwd=project)
    assert said.returncode == 1
    assert f"error: {MINE}: no such file; `dvc pull` fetches one that DVC tracks" in said.stderr
    assert said.stderr.endswith(f"in the folder of an experiment: medtune add {MINE}\n")


def test_an_edit_reruns_what_it_must_and_a_broken_row_costs_nothing(project: Path) -> None:
    file = project / MINE
    made = [project / "data/prepared/train.jsonl", project / "models/adapter/adapter_model.safetensors"]
    before = [path.read_bytes() for path in made]
    file.write_text(rows() + '{"question": "What is 1 +\n')
    said = attempt("dvc", "repro", cwd=project)
    assert said.returncode != 0
    assert f"{MINE}, line 49: not JSON" in said.stderr and "Traceback" not in said.stderr
    assert [path.read_bytes() for path in made] == before

    file.write_text(rows())
    assert repro(project) == set()
    assert run("git", "status", "--porcelain", cwd=project) == ""

    file.write_text(rows() + rows(first=300))
    assert repro(project, "prepare") == {"code", "prepare"}
    assert repro(project, "prepare") == set()
    assert "finetune:" in run("dvc", "status", cwd=project)
    changed = run("git", "status", "--porcelain", cwd=project)
    assert f" M {MINE}.dvc\n" in changed and " M dvc.lock\n" in changed
