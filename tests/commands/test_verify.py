"""`medtune verify` on a real run: every link holds, and tampering breaks the link it belongs to."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medtune.commands.rerun import compare
from medtune.commands.verify import verify_chain
from medtune.run.lock_file import dvc_md5, entries, read_lock
from tests.conftest import edit_params
from tests.project import attempt, run

pytestmark = pytest.mark.slow

VERIFY = (sys.executable, "-m", "medtune.commands.cli", "verify")


@pytest.fixture
def project(finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, as the current folder."""
    folder = tmp_path / "medtune"
    shutil.copytree(finished_project, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def broken() -> dict[str, str]:
    return {link.name: link.broken for link in verify_chain() if link.broken}


def replace(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def edit_json(path: str, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content))


def relock(path: str) -> None:
    """Let dvc.lock vouch for a file that was tampered with, everywhere it names it."""
    lock = Path("dvc.lock").read_text()
    for entry in entries(read_lock()):
        if entry.path == path:
            lock = lock.replace(entry.md5, dvc_md5(Path(path)))
    Path("dvc.lock").write_text(lock)


def test_the_command_says_of_every_link_that_it_holds(project: Path) -> None:
    printed = run(*VERIFY, cwd=project)
    assert printed.count("holds") == len(printed.splitlines()) == 10


def test_the_hashes_are_those_of_dvc(project: Path) -> None:
    folders = [entry for entry in entries(read_lock()) if entry.md5.endswith(".dir")]
    assert {entry.path for entry in folders} >= {"models/adapter", "models/checkpoints", "data/raw"}
    for entry in folders:
        assert dvc_md5(Path(entry.path)) == entry.md5


def test_a_changed_question_breaks_the_chain_even_if_dvc_lock_vouches_for_it(project: Path) -> None:
    path = "data/prepared/train.jsonl"
    replace(path, '"answer": "', '"answer": "x')
    assert set(broken()) == {
        "source -> questions",
        "questions, adapter, predictions, metrics are those of dvc.lock",
        "questions, code, parameters -> adapter",
    }
    relock(path)
    assert set(broken()) == {"source -> questions", "questions, code, parameters -> adapter"}


def test_an_adapter_from_elsewhere_breaks_the_chain(project: Path) -> None:
    weights = Path("models/adapter/adapter_model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    relock("models/adapter")
    assert set(broken()) == {"best checkpoint -> adapter"}


def test_better_metrics_than_the_predictions_give_break_the_chain(project: Path) -> None:
    edit_json("metrics/evaluation.json", lambda metrics: metrics.update(accuracy=0.99))
    relock("metrics/evaluation.json")
    assert broken() == {
        "predictions -> evaluation metrics": "metrics/evaluation.json: not what the predictions score"
    }


def test_a_training_loss_that_the_history_does_not_know_breaks_the_chain(project: Path) -> None:
    edit_json("metrics/training.json", lambda metrics: metrics.update(validation_loss=0.1))
    relock("metrics/training.json")
    assert set(broken()) == {"training history -> metrics and curves"}


def test_edited_code_and_parameters_break_the_chain(project: Path) -> None:
    replace("medtune/train/loss.py", "The training loss", "A training loss")
    edit_params(Path("params.yaml"), {"finetune.learning_rate": 0.5})
    found = broken()
    assert "medtune/train/loss.py" in found["parameters and code are those of dvc.lock"]
    assert "medtune/train/loss.py" in found["questions, code, parameters -> adapter"]
    replace("medtune/train/loss.py", "A training loss", "The training loss")
    assert "the section 'finetune'" in broken()["parameters and code are those of dvc.lock"]


def test_a_stage_that_read_another_file_than_its_producer_wrote_breaks_the_chain(project: Path) -> None:
    lock = Path("dvc.lock").read_text()
    adapter = next(e.md5 for e in entries(read_lock()) if e.path == "models/adapter" and e.role == "deps")
    before, _, after = lock.partition("  evaluate:")
    Path("dvc.lock").write_text(f"{before}  evaluate:{after.replace(adapter, '0' * 32 + '.dir')}")
    assert "evaluate read another models/adapter than finetune wrote" in broken().values()


def test_what_was_not_pulled_is_named_and_the_exit_code_is_1(project: Path) -> None:
    shutil.rmtree("models/adapter")
    result = attempt(*VERIFY, cwd=project)
    assert result.returncode == 1
    assert "models/adapter: not there; run `dvc pull` to fetch it" in result.stdout
    assert "links are broken" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_rerun_is_identical(project: Path) -> None:
    assert run(*VERIFY, "--rerun", cwd=project).rstrip().endswith("run again: identical")


def test_a_rerun_that_differs_says_by_how_much_and_why_it_may(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    shutil.copytree(project, second, symlinks=True)
    assert compare(project, second).verdict(0.05) == "identical"
    monkeypatch.chdir(second)
    edit_json("metrics/evaluation.json", lambda m: m.update(token_f1=float(str(m["token_f1"])) + 0.02))
    edit_json(
        "models/adapter/provenance.json",
        lambda p: p["environment"].update(threads=7),  # type: ignore[attr-defined]
    )
    relock("metrics/evaluation.json")
    relock("models/adapter")
    comparison = compare(project, second)
    assert comparison.outputs == ["metrics/evaluation.json", "models/adapter"]
    assert comparison.metrics["evaluation.token_f1"] == pytest.approx(0.02)
    assert comparison.environment == ["threads: 2 then, 7 now"]
    assert comparison.verdict(0.05) == "within tolerance"
    assert comparison.verdict(0.01) == "different"
