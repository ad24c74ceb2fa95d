"""The pipeline from end to end, as a user meets it: files, reruns, a clone, a failure."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, edit_params
from tests.project import STAGES, attempt, commit, repro, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, for the tests here to change in turn."""
    folder = tmp_path_factory.mktemp("end-to-end") / "medtune"
    shutil.copytree(finished_project, folder, symlinks=True)
    return folder


@pytest.fixture
def change(project: Path) -> Callable[[str, object], set[str]]:
    """Edits a parameter, commits what `dvc repro` makes of it, and returns the stages that ran."""

    def _change(key: str, value: object) -> set[str]:
        edit_params(project / "params.yaml", {key: value})
        stages = repro(project)
        commit(project, f"{key}: {value}")
        return stages

    return _change


def test_every_promised_file_is_there(project: Path) -> None:
    adapter = {path.name for path in (project / "models/adapter").iterdir()}
    assert adapter == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "provenance.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    checkpoints = sorted(path.name for path in (project / "models/checkpoints").iterdir())
    assert checkpoints == ["checkpoint-3", "checkpoint-5"]
    for name in ("baseline", "evaluation"):
        metrics = json.loads((project / f"metrics/{name}.json").read_text())
        assert metrics["n"] == 18
        assert {kind: figures["n"] for kind, figures in metrics["kinds"].items()} == {
            "definition": 6,
            "medical_term": 6,
            "organ_system": 6,
        }
        results = json.loads((project / f"metrics/{name}_results.json").read_text())
        assert len(results["results"]) == len(results["selected_indices"]) == 18
    data = json.loads((project / "metrics/data.json").read_text())
    assert set(data["overlaps"].values()) == {0}
    card = (project / "models/adapter/README.md").read_text()
    assert "Not medical advice" in card and "Human Phenotype Ontology" in card


def test_nothing_tracked_depends_on_the_machine_or_the_clock(project: Path) -> None:
    tracked = [path for name in ("data", "models", "metrics") for path in (project / name).rglob("*")]
    places = [str(project).encode(), str(Path.home()).encode(), sys.prefix.encode()]
    for path in tracked:
        if path.is_file():
            content = path.read_bytes()
            assert not any(place in content for place in places), path


def test_git_holds_no_data_text_and_no_weights(project: Path) -> None:
    committed = set(run("git", "ls-files", cwd=project).splitlines())
    tracked_by_dvc = {"train.jsonl", "evaluation_results.json", "baseline_results.json"}
    assert not {name for name in committed if Path(name).name in tracked_by_dvc}
    assert not {name for name in committed if name.startswith("models/") and name != "models/.gitignore"}
    assert {"metrics/evaluation.json", "metrics/timing.json", "metrics/curves/loss.csv"} <= committed


def test_a_second_repro_runs_nothing(project: Path) -> None:
    assert repro(project) == set()
    assert run("git", "status", "--porcelain", cwd=project) == ""


def test_a_forced_repro_changes_the_clock_alone(project: Path) -> None:
    assert repro(project, "--force") == set(STAGES)
    changed = run("git", "status", "--porcelain", cwd=project).split()
    assert changed in ([], ["M", "metrics/timing.json"])
    run("git", "checkout", "--quiet", ".", cwd=project)


def test_a_clone_pulls_the_adapter_asks_it_and_has_nothing_to_run(project: Path, tmp_path: Path) -> None:
    run("dvc", "push", cwd=project)
    # The default remote is a sibling folder of the repository: put the clone beside it too.
    clone = project.parent / "clone"
    run("git", "clone", "--quiet", str(project), str(clone), cwd=tmp_path)
    run("dvc", "pull", cwd=clone)
    assert (clone / "models/adapter/adapter_model.safetensors").read_bytes() == (
        project / "models/adapter/adapter_model.safetensors"
    ).read_bytes()
    assert repro(clone) == set()
    ask = (sys.executable, "-m", "medtune.commands.cli", "ask", "Which organ systems does Short toe affect?")
    answers = [run(*ask, cwd=clone).strip(), run(*ask, "--base", cwd=clone).strip()]
    assert all(answers)
    assert answers[0] != answers[1]
    snippet = (ROOT / "README.md").read_text().split("```python")[1].split("```")[0]
    assert run(sys.executable, "-c", snippet, cwd=clone).strip() == answers[0]


def test_editing_evaluate_reruns_evaluate_and_baseline_only(
    project: Path, change: Callable[[str, object], set[str]]
) -> None:
    assert change("evaluate.max_new_tokens", 6) == {"baseline", "evaluate"}
    difference = json.loads(run("dvc", "metrics", "diff", "HEAD~1", "--json", cwd=project))
    assert "token_f1" in difference["metrics/baseline.json"]
    assert not any("training" in path or "data" in path for path in difference)


def test_editing_finetune_reruns_finetune_and_evaluate_only(
    project: Path, change: Callable[[str, object], set[str]]
) -> None:
    assert change("finetune.learning_rate", 0.002) == {"finetune", "evaluate"}
    difference = json.loads(run("dvc", "metrics", "diff", "HEAD~1", "--json", cwd=project))
    changed = difference["metrics/training.json"]["validation_loss"]
    assert changed["new"] != changed["old"]
    assert "metrics/baseline.json" not in difference


def test_a_stage_that_fails_says_why_and_loses_nothing(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    params = (project / "params.yaml").read_bytes()
    edit_params(project / "params.yaml", {"finetune.max_length": 60})
    result = attempt("dvc", "repro", cwd=project)
    assert result.returncode != 0
    assert "error: data/prepared/train.jsonl: example" in result.stderr
    assert "Traceback" not in result.stderr
    (project / "params.yaml").write_bytes(params)
    run("dvc", "checkout", cwd=project)
    assert repro(project) == set()
    assert (project / "dvc.lock").read_bytes() == before
