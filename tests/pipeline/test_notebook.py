"""The notebook for Colab, run from its first cell to its last: on this CPU, with a tiny model."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.conftest import ROOT
from tests.project import attempt, commit, environment, run
from tests.tiny import build_tiny_base, create_tiny_project
from tests.tools import digests

NOTEBOOK = ROOT / "notebooks/colab.ipynb"
SMALL: dict[str, object] = {
    "finetune.epochs": 0.2,
    "finetune.evaluate_every": 2,
    "answer.max_new_tokens": 8,
    "answer.examples_per_kind": 4,
}


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(project: Path, monkeypatch: pytest.MonkeyPatch, **parameters: str) -> Any:
    """Run the notebook in a project, with other values in the cell of parameters; it is returned as run."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    notebook = read()
    [cell] = [cell for cell in notebook.cells if cell.metadata.get("tags") == ["parameters"]]
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}}).execute()
    return notebook


def said(notebook: Any, name: str) -> str:
    [cell] = [cell for cell in notebook.cells if cell["id"] == name]
    return "".join(output.get("text", "") for output in cell.outputs)


def test_it_is_committed_as_it_is_before_a_run_in_short_cells() -> None:
    notebook = read()
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert len(cell.source.splitlines()) <= 16
        if cell.cell_type == "code":
            assert cell.execution_count is None and not cell.outputs
    assert json.loads(NOTEBOOK.read_text())["metadata"]["accelerator"] == "GPU"
    assert 'PROFILE = "llama-3.2-1b-qlora-t4"' in NOTEBOOK.read_text().replace('\\"', '"')
    assert (ROOT / "profiles/llama-3.2-1b-qlora-t4.yaml").is_file()


@pytest.mark.slow
def test_it_trains_shows_asks_and_saves_what_another_machine_can_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = build_tiny_base(tmp_path / "base")
    project = create_tiny_project(tmp_path / "medtune", base, SMALL, prepared=False)
    model = {name.removeprefix("model."): value for name, value in base.items()}
    profile = {"model": model, "finetune": {"learning_rate": 0.02}}
    (project / "profiles/tiny.yaml").write_text("# A tiny one\n" + yaml.safe_dump(profile))
    commit(project, "A profile")
    drive = tmp_path / "my drive"
    ran = execute(project, monkeypatch, PROFILE="tiny", SAVE_TO=str(drive), QUESTION="What is 2 + 4?")

    assert "params.yaml is profile tiny" in said(ran, "use")
    assert "Running stage 'evaluate'" in said(ran, "repro")
    assert "accuracy" in said(ran, "metrics")
    [report] = next(cell for cell in ran.cells if cell["id"] == "report").outputs
    assert "medtune" in report.data["text/html"]
    assert said(ran, "ask").strip()
    assert "objects are whole" in said(ran, "push")

    elsewhere = tmp_path / "elsewhere"
    run("git", "clone", "--quiet", str(drive / "medtune.bundle"), str(elsewhere), cwd=tmp_path)
    run("dvc", "remote", "modify", "--local", "storage", "url", str(drive / "storage"), cwd=elsewhere)
    run("dvc", "pull", "--quiet", cwd=elsewhere)
    assert digests(elsewhere / "models/adapter") == digests(project / "models/adapter")


def test_a_command_that_fails_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").mkdir()
    with pytest.raises(CellExecutionError, match="medtune use none: failed; the lines above say why"):
        execute(tmp_path, monkeypatch, PROFILE="none")
    assert not attempt("git", "status", cwd=tmp_path).stdout
