"""The pipeline from end to end, as a user meets it: files, reruns, a clone, a failure."""

import json
import re
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
        "tokenizer.json",
        "tokenizer_config.json",
    }
    checkpoints = sorted(path.name for path in (project / "models/checkpoints").iterdir())
    assert checkpoints == ["checkpoint-3", "checkpoint-6"]
    kinds = {"definition", "finding", "medical_term", "organ_system"}
    details = json.loads((project / "metrics/details.json").read_text())
    for model, name in (("base", "baseline"), ("tuned", "evaluation")):
        assert details["all"][model]["n"] == 24
        assert {kind: figures[model]["n"] for kind, figures in details["kinds"].items()} == dict.fromkeys(
            kinds, 6
        )
        results = json.loads((project / f"metrics/{name}_results.json").read_text())
        assert len(results["results"]) == len(results["selected_indices"]) == 24
    assert {path.stem for path in (project / "metrics/kinds").iterdir()} == kinds
    record = json.loads((project / "models/record.json").read_text())
    assert set(record) == {"adapter", "base_model", "inputs", "parameters"}
    data = json.loads((project / "metrics/data.json").read_text())
    assert data["overlaps"] | {"stock_answers": 0} == dict.fromkeys(data["overlaps"], 0)
    assert data["leakage"] == 0
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
    with_text = {
        "evaluation_results.json",
        "baseline_results.json",
        "answers-base.json",
        "answers-tuned.json",
        "answers-shots.json",
        "report.html",
    }
    assert not {name for name in committed if Path(name).name in {"train.jsonl", *with_text}}
    of_models = {name for name in committed if name.startswith("models/") and not name.endswith(".gitignore")}
    assert of_models == {"models/record.json"}
    assert {"metrics/evaluation.json", "metrics/timing.json", "metrics/curves/loss.csv"} <= committed


def test_a_second_repro_runs_nothing(project: Path) -> None:
    assert repro(project) == set()
    assert run("git", "status", "--porcelain", cwd=project) == ""


def test_a_forced_repro_changes_the_clock_alone(project: Path) -> None:
    assert repro(project, "--force") == set(STAGES)
    changed = run("git", "status", "--porcelain", cwd=project).split()
    assert changed in ([], ["M", "metrics/timing.json"])
    assert run("dvc", "metrics", "diff", cwd=project) == ""
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


def test_metrics_fit_a_terminal_and_a_diff_has_what_a_person_wants(
    project: Path, change: Callable[[str, object], set[str]]
) -> None:
    assert change("finetune.learning_rate", 0.002) == {"code", "finetune", "answer-tuned", "evaluate"}
    terminal = {"COLUMNS": "120"}
    shown = run("dvc", "metrics", "show", cwd=project, env=terminal)
    assert max(map(len, shown.splitlines())) <= 120
    for name in ("accuracy", "gain", "gain_low", "gain_high", "verdict", "token_f1", "validation_loss"):
        assert name in shown
    rows = run("dvc", "metrics", "diff", "HEAD~1", cwd=project, env=terminal).splitlines()[1:]
    assert 0 < len(rows) <= 15
    assert any("validation_loss" in row for row in rows)


def test_plots_of_two_commits_are_drawn_and_need_no_network(project: Path) -> None:
    # `make install` does this once.
    run("python", "-m", "medtune.commands.plots_page", cwd=project)
    run("dvc", "plots", "diff", "HEAD~1", cwd=project)
    page = (project / "dvc_plots/index.html").read_text()
    assert set(re.findall(r'"title": \{"text": "([^"]+)"', page)) == {
        "Loss in training and validation",
        "Learning rate",
        "Norm of the gradient",
        "Exact answers by kind of question, with 95% intervals",
    }
    assert not re.search(r"<script[^>]* src=", page)


def test_a_mistake_that_only_the_tokenizer_shows_loses_nothing(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    params = (project / "params.yaml").read_bytes()
    edit_params(project / "params.yaml", {"finetune.max_length": 60})
    result = attempt("dvc", "repro", cwd=project)
    assert result.returncode != 0
    assert re.search(
        r"error: data/prepared/train.jsonl: \d+ of \d+ examples have more tokens than finetune", result.stderr
    )
    assert "Traceback" not in result.stderr
    (project / "params.yaml").write_bytes(params)
    assert (project / "models/adapter/adapter_model.safetensors").is_file()
    assert repro(project) == set()
    assert (project / "dvc.lock").read_bytes() == before
