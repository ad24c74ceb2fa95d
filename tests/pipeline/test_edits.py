"""Nothing that is edited while a stage runs gets into `dvc.lock`, and nothing that was done is lost."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import edit_params
from tests.project import commit, environment, repro, run, wait_until
from tests.tiny import build_tiny_base, create_tiny_project

pytestmark = pytest.mark.slow

ADAPTER = "models/adapter/adapter_model.safetensors"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A prepared repository whose training waits after every step for a while."""
    base = build_tiny_base(tmp_path / "base")
    folder = create_tiny_project(tmp_path / "medtune", base, {"finetune.evaluate_every": 2})
    commit(folder, "Prepared")
    return folder


def edited_while_training(project: Path, edit: Callable[[], object]) -> subprocess.CompletedProcess[str]:
    """Start `dvc repro`, and edit something once the first checkpoint is there."""
    progress = project.parent / "progress"
    process = subprocess.Popen(
        ("dvc", "repro"),
        cwd=project,
        env=environment({"MEDTUNE_PROGRESS": str(progress)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: any(progress.rglob("checkpoint-2/manifest.json")), process)
    edit()
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess((), process.returncode, stdout, stderr)


def test_a_parameter_edited_while_it_trains_is_not_recorded(project: Path) -> None:
    params = project / "params.yaml"
    original = params.read_text()
    result = edited_while_training(project, lambda: edit_params(params, {"finetune.learning_rate": 0.5}))

    assert result.returncode != 0
    assert "error: finetune: changed while it ran: params.yaml (finetune.learning_rate)" in result.stderr
    assert "Traceback" not in result.stderr
    assert "finetune" not in yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert not (project / ADAPTER).exists()

    params.write_text(original)
    env = {"MEDTUNE_PROGRESS": str(project.parent / "progress")}
    assert "going on from step" in run("dvc", "repro", cwd=project, env=env)
    as_asked = (project / ADAPTER).read_bytes()
    recorded = yaml.safe_load((project / "dvc.lock").read_text())["stages"]["finetune"]
    assert recorded["params"]["params.yaml"]["finetune"]["learning_rate"] == 0.01

    # Set in earnest, it is trained, and nothing of the first run is restored in its place.
    edit_params(params, {"finetune.learning_rate": 0.5})
    assert "finetune" in repro(project, env=env)
    assert (project / ADAPTER).read_bytes() != as_asked
    assert (
        json.loads((project / "models/record.json").read_text())["parameters"]["finetune"]["learning_rate"]
        == 0.5
    )


def test_a_module_edited_while_it_trains_is_not_recorded(project: Path) -> None:
    module = project / "medtune/train/loss.py"
    edit = module.read_text().replace("part.float()", "2 * part.float()")
    result = edited_while_training(project, lambda: module.write_text(edit))
    assert result.returncode != 0
    assert "error: finetune: changed while it ran: medtune/train/loss.py" in result.stderr
    assert not (project / ADAPTER).exists()


def test_a_comment_written_while_it_trains_does_no_harm(project: Path) -> None:
    module = project / "medtune/train/loss.py"
    result = edited_while_training(
        project, lambda: module.write_text(module.read_text() + "\n# More.\n") and None
    )
    assert result.returncode == 0, result.stderr
    assert repro(project) == {"code"}


def test_questions_edited_while_it_trains_are_not_recorded(project: Path) -> None:
    train = project / "data/prepared/train.jsonl"

    def edit() -> None:
        text = train.read_text()
        train.unlink()
        train.write_text(text.replace('"answer": "', '"answer": "1', 1))

    result = edited_while_training(project, edit)
    assert "error: finetune: changed while it ran: data/prepared/train.jsonl" in result.stderr
    run("dvc", "checkout", "--force", "data/prepared/train.jsonl", cwd=project)
    env = {"MEDTUNE_PROGRESS": str(project.parent / "progress")}
    assert "finetune" in repro(project, env=env)
