"""The recipes of CONTRIBUTING.md do what they say: each is followed to the letter in a copy."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from medtune.run.code import digest, entry_points
from tests.conftest import ROOT
from tests.project import attempt, commit, repro, run

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
RECIPES = {
    title: BLOCK.findall(text)
    for title, _, text in (
        part.partition("\n")
        for part in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n### ")[1:]
    )
}
"""By title: language, file and text of each block."""


def apply(change: str, name: str, folder: Path) -> None:
    """Make a change that is written without the line numbers that a patch has."""
    lines = change.splitlines()
    before, after = (sum(not line.startswith(sign) for line in lines) for sign in "+-")
    patch = f"--- a/{name}\n+++ b/{name}\n@@ -2,{before} +2,{after} @@\n{change}"
    applied = subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, text=True, capture_output=True)
    assert applied.returncode == 0, f"{name}:\n{change}\n{applied.stderr}"


def follow(title: str, folder: Path) -> list[str]:
    """Do what a recipe says; returns what each of its commands printed."""
    printed = []
    for language, name, text in RECIPES[title]:
        if language == "diff":
            apply(text, name, folder)
        elif name:
            (folder / name).write_text(text)
        else:
            assert language == "bash"
            printed += [in_shell(line, folder) for line in text.splitlines()]
    return printed


def in_shell(line: str, folder: Path) -> str:
    # Packages are installed: `make` is not to install the copy in place of this repository.
    make = 'make() { command make --old-file=install "$@"; }'
    # A make that runs these tests would hand its own variables down.
    variables = {"PYTHONPATH": str(folder), "MAKEFLAGS": "", "MAKELEVEL": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return run("bash", "-c", f"{make}\n{line}", cwd=folder, env=variables)


@pytest.fixture(scope="module")
def finished(finished_tiny_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and committed run whose params.yaml has its comments. Copy it; leave it as it is."""
    project = tmp_path_factory.mktemp("contributing") / "medtune"
    shutil.copytree(finished_tiny_project, project, symlinks=True)
    # Its words were lost where its values were set.
    in_shell("make params", project)
    commit(project, "Its words")
    return project


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "medtune", symlinks=True)
    return tmp_path / "medtune"


def digests(folder: Path) -> dict[str, object]:
    return {name: digest(f"stages.{name}", quantised=False, root=folder) for name in entry_points(folder)}


def test_there_is_a_recipe_for_whatever_is_added_often_and_each_is_run() -> None:
    run_here = {name for name in globals() if name.startswith("test_the_recipe_for_")}
    assert len(run_here) == len(RECIPES) == 5
    assert all(blocks for blocks in RECIPES.values())


def test_the_recipe_for_a_profile(copy: Path) -> None:
    shown, tested = follow("A profile", copy)
    assert "+  tokens_per_pass: 512" in shown and "nothing was written" in shown
    assert re.search(r"^[3-9] passed", tested, re.M)


def test_the_recipe_for_a_data_source(copy: Path) -> None:
    before = digests(copy)
    (tested,) = follow("A data source", copy)
    assert re.search(r"^\d\d passed", tested, re.M)
    changed = {name for name, meaning in digests(copy).items() if meaning != before[name]}
    assert changed == {"prepare"}


def test_the_recipe_for_a_metric(copy: Path) -> None:
    *_, repeated, compared = follow("A metric", copy)
    assert re.findall(r"Running stage '([\w-]+)'", repeated) == ["code", "evaluate"]
    assert "words found" in compared and "unchanged" in compared
    tuned = json.loads((copy / "metrics/details.json").read_text())["all"]["tuned"]
    assert tuned["recall_low"] <= tuned["recall"] <= tuned["recall_high"]
    schema = json.loads((copy / "params.schema.json").read_text())
    assert "recall" in json.dumps(schema["properties"]["diff"])


def test_the_recipe_for_a_model_family(copy: Path) -> None:
    (tested,) = follow("A model family", copy)
    assert re.search(r"^[6-9] passed", tested, re.M)


def test_the_recipe_for_a_stage_with_parameters_of_its_own_reruns_no_other(copy: Path) -> None:
    before = digests(copy)
    *_, checked, repeated, tested = follow("A stage with parameters of its own", copy)
    assert "nothing is wrong" in checked
    assert re.findall(r"Running stage '([\w-]+)'", repeated) == ["code", "brevity"]
    assert re.search(r"^\d\d passed", tested, re.M)
    after = digests(copy)
    assert {name: after[name] for name in before} == before
    assert 0 <= json.loads((copy / "metrics/brevity.json").read_text())["long"] <= 1
    text = (copy / "params.yaml").read_text()
    assert "# How short an answer is to be. Read by brevity.\nbrevity:\n  # Words; an answer" in text
    _refuses_what_it_does_not_know(copy)
    _is_verified_and_runs_again_for_what_it_reads(copy)


def _refuses_what_it_does_not_know(copy: Path) -> None:
    text = (copy / "params.yaml").read_text()
    environment = {"PYTHONPATH": str(copy)}
    for found, wrong, words in (
        ("longest: 12", "longest: 0", "brevity.longest is 0: must be greater than or equal to 1"),
        ("longest: 12", "longst: 12", "unknown key 'brevity.longst'; did you mean 'longest'?"),
        ("\nbrevity:", "\nbrevty:", "unknown section 'brevty'; did you mean 'brevity'?"),
    ):
        (copy / "params.yaml").write_text(text.replace(found, wrong))
        refused = attempt("medtune", "check", cwd=copy, env=environment)
        assert refused.returncode == 1
        assert words in refused.stderr
    (copy / "params.yaml").write_text(text)


def _is_verified_and_runs_again_for_what_it_reads(copy: Path) -> None:
    environment = {"PYTHONPATH": str(copy)}
    said = run("medtune", "verify", cwd=copy, env=environment)
    assert "BROKEN" not in said
    assert said.rstrip().endswith("repeats both, and the work of brevity, which no link looks at")
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("longest: 12", "longest: 1"))
    with (copy / "medtune/evaluate/brevity.py").open("a") as file:
        file.write("# A comment\n")
    assert repro(copy, env=environment) == {"code", "brevity"}
    broken = copy / "medtune/evaluate/brevity.py"
    broken.write_text(broken.read_text().replace("> params", ">= params"))
    judged = attempt("medtune", "verify", cwd=copy, env=environment)
    assert "digests/brevity.json" in judged.stdout and judged.returncode == 1


WORDS = """
  words:
    cmd: cp params.yaml metrics/words.txt
    params: [words]
    outs: [metrics/words.txt]
"""


def test_a_stage_of_any_program_has_a_section_of_its_own(copy: Path) -> None:
    pipeline, environment = (copy / "dvc.yaml").read_text(), {"PYTHONPATH": str(copy)}
    (copy / "dvc.yaml").write_text(pipeline.replace("\nartifacts:", f"{WORDS}\nartifacts:"))
    with (copy / "params.yaml").open("a") as file:
        file.write("\nwords:\n  most: 3\n")
    assert "nothing is wrong" in run("medtune", "check", cwd=copy, env=environment)
    assert repro(copy, env=environment) == {"words"}
    assert (copy / "metrics/words.txt").is_file()
    (copy / "dvc.yaml").write_text(pipeline)
    refused = attempt("medtune", "check", cwd=copy, env=environment)
    assert "unknown section 'words'" in refused.stderr
