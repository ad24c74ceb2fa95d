"""A command works in the repository that the user stands in, from any folder of it, and in no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medtune.commands.cli import _parser
from medtune.commands.command_help import _commands
from medtune.commands.repository import enter, find_root, from_here, side_from_here
from medtune.core.errors import MedtuneError
from tests.conftest import ROOT
from tests.project import attempt, run


def repository(folder: Path) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "medtune").mkdir()
    return folder


@pytest.fixture
def top(tmp_path: Path) -> Path:
    top = repository(tmp_path / "top")
    (top / "data/raw").mkdir(parents=True)
    (top / "docs").mkdir()
    return top


def test_the_nearest_repository_above_is_found(top: Path) -> None:
    inner = repository(top / "data/raw/inner")
    assert find_root(top) == find_root(top / "data/raw") == top
    assert find_root(inner) == inner
    assert find_root(top.parent) is None


def test_who_stands_in_a_git_repository_of_something_else_does_not_mean_the_one_around_it(top: Path) -> None:
    (top / "docs/theirs/.git").mkdir(parents=True)
    assert find_root(top / "docs/theirs") is None
    (top / "docs/module").mkdir()
    (top / "docs/module/.git").write_text("gitdir: ../../.git/modules/module\n")
    assert find_root(top / "docs/module") is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mine.jsonl", "data/raw/mine.jsonl"),
        ("mine-*.csv", "data/raw/mine-*.csv"),
        ("../../docs/a.json", "docs/a.json"),
        ("../../../beside.csv", "../beside.csv"),
        ("/dev/stdin", "/dev/stdin"),
        ("", ""),
    ],
)
def test_what_is_typed_is_relative_to_where_the_user_stands(
    top: Path, monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    monkeypatch.chdir(top / "data/raw")
    assert from_here(typed) == meant


def test_two_dots_behind_a_link_are_those_of_its_target(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "data/raw/link").symlink_to(top / "docs")
    (top / "here.csv").touch()
    monkeypatch.chdir(top / "data/raw")
    meant = from_here("link/../here.csv")
    assert (top / meant).samefile(top / "here.csv")


def test_in_the_top_folder_what_is_typed_stays(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(top)
    assert from_here("./docs/../x.csv") == "./docs/../x.csv"


def test_a_commit_is_no_path(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "docs/main").touch()
    monkeypatch.chdir(top / "docs")
    assert [side_from_here(name) for name in ("main", "HEAD~1", "a.json")] == [
        "main",
        "HEAD~1",
        "docs/a.json",
    ]


def test_the_code_of_another_repository_is_told(
    top: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (top / "medtune/commands").mkdir(parents=True, exist_ok=True)
    (top / "medtune/commands/cli.py").touch()
    monkeypatch.chdir(top / "docs")
    enter(needed=True)
    assert Path.cwd() == top
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: this medtune is that of {ROOT}, not of {top}: ")
    monkeypatch.chdir(ROOT / "docs")
    enter(needed=True)
    assert capsys.readouterr().err == ""


def test_a_folder_that_was_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(MedtuneError, match="was deleted"):
        enter(needed=False)
    monkeypatch.chdir(tmp_path)


MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
OWN = {"PYTHONPATH": str(ROOT)}


def test_a_subfolder_gives_what_the_top_folder_gives() -> None:
    use = (*MEDTUNE, "use", "llama-3.2-1b", "--dry-run")
    here, there = (run(*use, cwd=folder, env=OWN) for folder in (ROOT, ROOT / "docs"))
    assert here == there
    assert "--- params.yaml" in here


def test_a_file_is_scored_from_the_folder_it_is_in(tmp_path: Path) -> None:
    row = '{"question": "Is fever a symptom?", "ground_truth": "yes", "prediction": "Yes."}\n'
    (tmp_path / "mine.jsonl").write_text(row)
    typed = os.path.relpath(tmp_path / "mine.jsonl", ROOT / "docs")
    assert '"match_type": "exact"' in run(*MEDTUNE, "score", typed, "--json", cwd=ROOT / "docs", env=OWN)
    missing = attempt(*MEDTUNE, "score", "no.jsonl", cwd=ROOT / "docs", env=OWN)
    assert missing.stderr == "error: docs/no.jsonl: no such file\n"


def test_an_adapter_that_is_typed_is_not_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs")
    for command in (["ask", "Fever?"], ["chat"]):
        assert _parser().parse_args(command).adapter == Path("models/adapter")
        typed = _parser().parse_args([*command, "--adapter", "models/adapter"])
        assert typed.adapter == Path("docs/models/adapter")


def test_no_option_takes_a_path_for_one_of_the_top_folder() -> None:
    (commands,) = _commands(_parser())
    for name, parser in commands.choices.items():
        for action in parser._actions:
            assert action.type is not Path, f"medtune {name} {action.dest}: path_from_here"


def test_git_and_this_agree_on_the_top_folder() -> None:
    top = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"], cwd=ROOT / "docs", capture_output=True, text=True, check=True
    )
    assert find_root(ROOT / "docs") == Path(top.stdout.strip())
