"""What is not as the commit has it is seen, whatever git was told to show."""

from pathlib import Path

import pytest

from medtune.verify.uncommitted import uncommitted
from tests.project import commit, run


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run("git", "init", "--quiet", cwd=tmp_path)
    for name in ("params.yaml", "dvc.lock", "notes.txt"):
        (tmp_path / name).write_text("a: 1\n")
    commit(tmp_path, "All of it")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("option", ["assume-unchanged", "skip-worktree"])
def test_an_edit_that_git_was_told_not_to_notice_is_noticed(repository: Path, option: str) -> None:
    for name in ("params.yaml", "dvc.lock", "notes.txt"):
        run("git", "update-index", f"--{option}", name, cwd=repository)
    assert uncommitted() == []
    (repository / "params.yaml").write_text("a: 2\n")
    (repository / "notes.txt").write_text("decides nothing\n")
    assert run("git", "status", "--porcelain", cwd=repository) == ""
    assert uncommitted() == ["params.yaml"]
    (repository / "params.yaml").unlink()
    assert uncommitted() == ["params.yaml"]


def test_a_file_that_git_does_not_know_is_seen_whatever_its_settings(repository: Path) -> None:
    run("git", "config", "status.showUntrackedFiles", "no", cwd=repository)
    (repository / "digests").mkdir()
    (repository / "digests/prepare.json").write_text("{}")
    (repository / "portalocker.py").write_text("")
    assert uncommitted() == ["digests/prepare.json", "portalocker.py"]
