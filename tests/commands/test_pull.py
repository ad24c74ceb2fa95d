"""What a clone can fetch is fetched; what it cannot is one line that says what to do."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.project import attempt, commit, run

PULL = (sys.executable, "-m", "medtune.commands.cli", "pull")
PIPELINE = """\
stages:
  first:
    cmd: mkdir out && echo one > out/one && echo two > out/two
    outs: [out]
  second:
    cmd: echo three > three
    outs: [three]
"""
NOTHING = (
    "has nothing of this commit's run; make it here with `dvc repro`, or have it pushed where it was made ("
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run that was not pushed."""
    folder = tmp_path_factory.mktemp("pull")
    run("git", "init", "--quiet", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    (folder / "dvc.yaml").write_text(PIPELINE)
    run("dvc", "repro", "--quiet", cwd=folder)
    return folder


@pytest.fixture
def made(repository: Path, tmp_path: Path) -> Path:
    """One with a default remote, a folder beside it that is not there."""
    folder = shutil.copytree(repository, tmp_path / "made")
    remote = f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {tmp_path}/storage\n"
    (folder / ".dvc/config").write_text(remote)
    commit(folder, "A run")
    return folder


@pytest.fixture
def clone(made: Path) -> Path:
    run("git", "clone", "--quiet", str(made), "clone", cwd=made.parent)
    return made.parent / "clone"


def refusal(clone: Path, *arguments: str) -> str:
    """What is said where it fails, without DVC's words and the warning that the code here lies elsewhere."""
    result = attempt(*PULL, *arguments, cwd=clone)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    return error


def test_an_empty_remote_and_none_at_all_are_one_line_each(clone: Path) -> None:
    storage = clone.parent / "storage"
    told = f"error: remote storage ({storage})"
    assert refusal(clone).startswith(f"{told} is not there: nothing was ever pushed to it; make it here")
    storage.mkdir()
    assert refusal(clone).startswith(f"{told} {NOTHING}")
    assert refusal(clone, "other") == "error: remote other: config file error: remote 'other' doesn't exist"
    run("dvc", "remote", "default", "--unset", cwd=clone)
    assert "no remote specified" in refusal(clone)


def test_what_was_pushed_is_fetched_from_any_folder_and_once(made: Path, clone: Path) -> None:
    run("dvc", "push", cwd=made)
    (clone / "docs").mkdir()
    said = "all 2 outputs of this commit are here; next: medtune verify; medtune ask QUESTION\n"
    assert run(*PULL, cwd=clone / "docs") == said
    assert (clone / "out/two").read_text() == "two\n"
    assert run(*PULL, cwd=clone) == said


def test_what_the_remote_has_is_fetched_and_the_rest_told(made: Path, clone: Path) -> None:
    run("dvc", "push", "second", cwd=made)
    error = refusal(clone)
    assert "lacks 1 of 2 outputs of this commit, out among them; the others are here now; make it" in error
    assert (clone / "three").is_file() and not (clone / "out").exists()


def test_a_folder_of_which_a_file_was_lost_in_the_remote_is_lacking(made: Path, clone: Path) -> None:
    run("dvc", "push", cwd=made)
    lost = run("md5sum", "out/two", cwd=made).split()[0]
    (clone.parent / f"storage/files/md5/{lost[:2]}/{lost[2:]}").unlink()
    assert "lacks 1 of 2 outputs of this commit, out among them" in refusal(clone)


def test_data_that_no_stage_makes_is_not_said_to_be_made_by_one(made: Path) -> None:
    (made / "mine.csv").write_text("question,answer\n")
    run("dvc", "add", "--quiet", "mine.csv", cwd=made)
    shutil.rmtree(made / ".dvc/cache")
    (made / "mine.csv").unlink()
    assert refusal(made).endswith("no stage makes mine.csv: have it pushed where it was made (`dvc push`)")


def test_a_commit_without_a_run_is_told(clone: Path) -> None:
    (clone / "dvc.lock").unlink()
    assert refusal(clone) == (
        "error: this commit has no run to fetch (dvc.lock names no output); make it here with `dvc repro`"
    )


def test_a_stage_that_was_changed_and_has_not_run_is_told(made: Path, clone: Path) -> None:
    run("dvc", "push", cwd=made)
    (clone / "dvc.yaml").write_text(PIPELINE.replace("[three]", "[three, four]"))
    error = refusal(clone)
    assert error.startswith(
        "error: 2 outputs are here, but dvc.lock of this commit knows no four: its stage was"
    )
    assert (clone / "three").is_file()
