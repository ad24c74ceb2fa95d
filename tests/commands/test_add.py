"""`medtune add` has DVC track a file, and names it in params.yaml and dvc.yaml: all of it, or nothing."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medtune.commands.add import NEUTRAL_PROMPT, add
from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import read_yaml
from tests.conftest import ROOT
from tests.project import attempt, commit, run

SHIPPED = (ROOT / "params.yaml").read_text()
ROWS = '{"question": "What is 1 + 1?", "answer": "2"}\n{"question": "What is 1 + 2?", "answer": "3"}\n'


@dataclass
class Project:
    """A repository with no more than what `medtune add` reads and writes."""

    folder: Path

    def write(self, name: str, content: str = ROWS) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def add(self, *places: str | Path) -> str:
        return add([str(place) for place in places])

    def refused(self, *places: str | Path) -> str:
        """The one line that it says; nothing that git looks at may change."""
        before = run("git", "status", "--porcelain", cwd=self.folder)
        with pytest.raises(MedtuneError) as refusal:
            self.add(*places)
        assert run("git", "status", "--porcelain", cwd=self.folder) == before
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    def params(self) -> dict[str, Any]:
        return read_yaml(self.folder / "params.yaml")

    def sources(self) -> dict[str, str]:
        return {name: source["path"] for name, source in self.params()["data"]["sources"].items()}

    def dependencies(self) -> list[str]:
        """The files of questions that the stages depend on; of both the same."""
        stages = read_yaml(self.folder / "dvc.yaml")["stages"]
        code, prepare = (
            [path for path in stages[name]["deps"] if path.startswith("data/raw/")]
            for name in ("code", "prepare")
        )
        assert code == prepare
        return code

    def staged(self) -> list[str]:
        return run("git", "diff", "--cached", "--name-only", cwd=self.folder).splitlines()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "project"
    for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    commit(folder, "As shipped")
    monkeypatch.chdir(folder)
    return Project(folder)


def test_a_file_below_data_raw_takes_the_place_of_the_ontology(project: Project) -> None:
    project.write("data/raw/mine.jsonl")
    pipeline = (project.folder / "dvc.yaml").read_text()
    said = project.add("data/raw/mine.jsonl")

    params, text = project.params(), (project.folder / "params.yaml").read_text()
    assert project.sources() == {"mine": "data/raw/mine.jsonl"}
    assert params["data"]["kinds"] is None and params["data"]["near_duplicates"] == 0.8
    assert params["evaluate"]["set_kinds"] == []
    assert params["prompt"]["system"] == NEUTRAL_PROMPT
    comments = [line for line in SHIPPED.splitlines() if line.lstrip().startswith("#")]
    assert [line for line in text.splitlines() if line.lstrip().startswith("#")] == comments
    untouched = {"model", "compute", "finetune", "answer", "diff"}
    assert {name: params[name] for name in untouched} == {
        name: read_yaml(ROOT / "params.yaml")[name] for name in untouched
    }

    line = "      - data/raw/mine.jsonl\n"
    assert (project.folder / "dvc.yaml").read_text().replace(line, "") == pipeline
    assert project.dependencies() == ["data/raw/mine.jsonl"]
    assert project.staged() == ["data/raw/mine.jsonl.dvc"]
    assert "\n+    mine: {path: data/raw/mine.jsonl}\n" in said
    assert "\ntracked by DVC: data/raw/mine.jsonl; its .dvc file is staged" in said
    assert said.endswith("\ndvc.yaml: code and prepare depend on data/raw/mine.jsonl")
    assert project.add("data/raw/mine.jsonl").startswith("nothing to do: ")


def test_a_file_from_elsewhere_is_copied(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "2024.jsonl"
    outside.write_text(ROWS)
    said = project.add(outside)
    assert f"copied {outside} to data/raw/2024.jsonl" in said
    assert outside.read_text() == (project.folder / "data/raw/2024.jsonl").read_text() == ROWS
    assert project.sources() == {"2024": "data/raw/2024.jsonl"}
    assert project.dependencies() == ["data/raw/2024.jsonl"]
    assert project.add(outside).startswith("nothing to do: ")

    outside.write_text(ROWS + ROWS)
    assert project.refused(outside) == (
        f"data/raw/2024.jsonl is there already with other content: rename {outside}, or add "
        "data/raw/2024.jsonl"
    )
    assert (project.folder / "data/raw/2024.jsonl").read_text() == ROWS


def test_a_pattern_is_one_source_of_the_files_that_it_matches(project: Project) -> None:
    for name in ("mine-1.jsonl", "mine-2.jsonl", "other.jsonl", ".gitkeep"):
        project.write(f"data/raw/{name}")
    project.add("data/raw/mine-*.jsonl")
    assert project.sources() == {"mine": "data/raw/mine-*.jsonl"}
    assert project.dependencies() == ["data/raw/mine-1.jsonl", "data/raw/mine-2.jsonl"]
    assert project.add("data/raw/mine-2.jsonl").startswith("nothing to do: ")

    assert "'data/raw/nothing-*.csv', which matches no file" in project.refused("data/raw/nothing-*.csv")
    assert project.refused("/elsewhere/*.csv").endswith("a pattern of files must lie below data/raw/")

    project.add("data/raw/*")
    assert len(project.dependencies()) == 3


def test_a_further_file_stands_beside_the_first_and_leaves_the_rest(project: Project) -> None:
    params = project.folder / "params.yaml"
    project.add(project.write("data/raw/mine.jsonl"))
    params.write_text(params.read_text().replace(NEUTRAL_PROMPT, "Ours."))
    project.write("data/raw/deep/mine.jsonl")
    project.write('data/raw/it\'s "b".jsonl')
    before = project.params()
    project.add("data/raw/deep/mine.jsonl", 'data/raw/it\'s "b".jsonl')
    found = {
        "mine": "data/raw/mine.jsonl",
        "mine-2": "data/raw/deep/mine.jsonl",
        "it-s-b": 'data/raw/it\'s "b".jsonl',
    }
    assert project.sources() == found
    assert project.dependencies() == sorted(found.values())
    before["data"]["sources"] = project.params()["data"]["sources"]
    assert project.params() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "mine.xlsx",
            b"PK\x03\x04",
            "unknown format; accepted: .jsonl, .ndjson, .json, .csv, .tsv, .parquet",
        ),
        ("mine.csv", b"", "holds no example; expected a line of column names"),
        ("mine.csv", b"question,answer\n", "holds no example; expected a line of column names"),
        ("mine.jsonl", "Frage".encode("utf-16"), "UTF-16 text: save the file as UTF-8"),
        ("mine.jsonl.gz", b"\x1f\x8b\x08", "broken, cut short or no gzip file"),
        ("mine.parquet", b"PAR1", "broken, cut short or no Parquet file"),
        ("folder.csv", None, "a folder; accepted: a file, or a pattern such as 'data/raw/mine-*.csv'"),
        ("nothing.csv", ..., "no such file"),
    ],
    ids=["format", "empty", "header alone", "UTF-16", "gzip", "Parquet", "folder", "missing"],
)
def test_what_cannot_be_read_is_refused_wherever_it_lies(
    project: Project, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    for folder in (tmp_path, project.folder / "data/raw"):
        folder.mkdir(parents=True, exist_ok=True)
        if content is None:
            (folder / name).mkdir()
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)
        assert words in project.refused(folder / name)
        if folder == tmp_path:
            assert not (project.folder / "data/raw").exists()


def test_without_a_file_dvc_yaml_follows_a_params_yaml_edited_by_hand(project: Project) -> None:
    project.add(project.write("data/raw/mine.jsonl"))
    commit(project.folder, "Mine")
    project.write("data/raw/train.jsonl")
    project.write("data/raw/test.jsonl")
    params = project.folder / "params.yaml"
    text = params.read_text().replace(
        "{path: data/raw/mine.jsonl}", "{splits: {train: data/raw/train.jsonl, test: data/raw/test.jsonl}}"
    )
    params.write_text(text)
    said = project.add()
    assert params.read_text() == text
    assert project.dependencies() == ["data/raw/test.jsonl", "data/raw/train.jsonl"]
    assert project.staged() == ["data/raw/test.jsonl.dvc", "data/raw/train.jsonl.dvc"]
    assert "tracked by DVC: data/raw/test.jsonl, data/raw/train.jsonl;" in said
    assert project.add().startswith("nothing to do: ")

    params.write_text(text.replace("raw/test", "raw/tset"))
    assert project.refused().startswith("data/raw/tset.jsonl: no such file; `dvc pull` fetches one that")
    params.write_text(SHIPPED)
    assert project.add() == "dvc.yaml: code and prepare depend on no local file"
    assert project.dependencies() == []


def test_what_dvc_tracks_but_git_does_not_have_is_staged(project: Project) -> None:
    project.write("data/raw/mine.jsonl")
    run("dvc", "add", "--quiet", "data/raw/mine.jsonl", cwd=project.folder)
    before = (project.folder / "data/raw/mine.jsonl.dvc").read_bytes()
    project.add("data/raw/mine.jsonl")
    assert (project.folder / "data/raw/mine.jsonl.dvc").read_bytes() == before
    assert project.staged() == ["data/raw/mine.jsonl.dvc"]


def test_an_error_is_one_line_and_exit_code_one(project: Project) -> None:
    command = (sys.executable, "-m", "medtune.commands.cli", "add", "nothing.csv")
    result = attempt(*command, cwd=project.folder)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "error: nothing.csv: no such file\n")


def test_files_in_a_folder_that_dvc_tracks_are_not_tracked_again(project: Project) -> None:
    project.write("data/raw/set/one.jsonl")
    project.write("data/raw/set/two.jsonl")
    run("dvc", "add", "--quiet", "data/raw/set", cwd=project.folder)
    project.add("data/raw/set/*.jsonl")
    assert project.dependencies() == ["data/raw/set/one.jsonl", "data/raw/set/two.jsonl"]
    assert project.staged() == ["data/raw/set.dvc"]


@pytest.mark.parametrize("at_fault", ["dvc", "ignored", "dvc.yaml", "stage", "params.yaml", "top folder"])
def test_a_failure_half_way_changes_neither_file(project: Project, tmp_path: Path, at_fault: str) -> None:
    folder, file = project.folder, tmp_path / "mine.jsonl"
    file.write_text(ROWS)
    pipeline, params = folder / "dvc.yaml", folder / "params.yaml"
    if at_fault == "dvc":
        shutil.rmtree(folder / ".dvc")
        words = "dvc add: you are not inside of a DVC repository"
    elif at_fault == "ignored":
        (folder / ".gitignore").write_text("/data/raw/**\n!/data/raw/**/\n")
        words = "dvc add: bad DVC file name 'data/raw/mine.jsonl.dvc' is git-ignored."
    elif at_fault == "dvc.yaml":
        pipeline.write_text("stages: {\n")
        words = "dvc.yaml, line 2: "
    elif at_fault == "stage":
        pipeline.write_text("stages: {prepare: {cmd: ls, deps: []}}\n")
        words = "dvc.yaml: the stage code is not there, or has no list `deps`"
    elif at_fault == "params.yaml":
        params.write_text(SHIPPED.replace("seed: 7", "seed: seven"))
        words = "params.yaml: data.seed is 'seven'"
    else:
        params.unlink()
        words = "params.yaml: no such file; run this in the top folder of the repository"
    before = [path.read_text() if path.is_file() else None for path in (pipeline, params)]
    assert words in project.refused(file)
    assert [path.read_text() if path.is_file() else None for path in (pipeline, params)] == before

    if at_fault == "dvc":
        run("dvc", "init", "--quiet", cwd=folder)
        project.add(file)
        assert project.sources() == {"mine": "data/raw/mine.jsonl"}
