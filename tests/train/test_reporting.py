"""Curves that go elsewhere too: they are whole and in the right words, and nothing else depends on them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState, TrainingArguments

from medtune.core.errors import MedtuneError
from medtune.core.outputs import read_csv
from medtune.train import reporting
from medtune.train.reporting import VARIABLE, Reports, chosen_trackers
from tests.project import attempt, run
from tests.servers import Mlflow, mlflow_server
from tests.tiny import build_tiny_base, create_tiny_project
from tests.tools import digests


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own; returns the folder with TensorBoard's files."""
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/curves/tensorboard"


def reports(*trackers: str, name: str) -> tuple[Reports, TrainerState, TrainingArguments]:
    """A reporter that has begun, as with the Trainer's first step."""
    started = Reports({"trackers": list(trackers), "run": name, "parameters": {"finetune.epochs": 1.0}})
    state, arguments = TrainerState(), TrainingArguments(report_to="none", use_cpu=True)
    started.on_train_begin(arguments, state, TrainerControl())
    return started, state, arguments


def log(started: tuple[Reports, TrainerState, TrainingArguments], step: int, loss: float) -> None:
    reported, state, arguments = started
    state.global_step = step
    reported.on_log(arguments, state, TrainerControl(), logs={"loss": loss})


def wait_for_point(server: Mlflow, run_name: str) -> None:
    end = time.monotonic() + 60
    while not (found := server.runs().get(run_name)) or not server.history(found, "loss"):
        assert time.monotonic() < end, server.runs()
        time.sleep(0.2)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """A curve as TensorBoard reads it."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("tensorbord", r"MEDTUNE_REPORT_TO: no tracker 'tensorbord'; did you mean 'tensorboard'\?"),
        ("all", "no tracker 'all'; accepted: tensorboard, mlflow, trackio, wandb"),
        ("tensorboard,mlflow", "mlflow needs MLFLOW_TRACKING_URI"),
        ("wandb", r"wandb is not installed: pip install .* wandb"),
    ],
)
def test_what_cannot_be_reported_to_is_one_line(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setitem(reporting.TRACKERS, "wandb", ("no_such_module",))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(MedtuneError, match=expected):
        chosen_trackers()


@pytest.mark.parametrize("value", ["", "none", " , "])
def test_nothing_is_reported_unless_somebody_asks(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert chosen_trackers() == []


def test_a_folder_that_a_tracker_left_is_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_such_module").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(reporting.TRACKERS, "wandb", ("no_such_module",))
    monkeypatch.setenv(VARIABLE, "wandb")
    with pytest.raises(MedtuneError, match="not installed"):
        chosen_trackers()


def test_no_output_depends_on_where_the_curves_go(tmp_path: Path, server: Mlflow) -> None:
    project = create_tiny_project(tmp_path / "medtune", build_tiny_base(tmp_path / "base"), {})
    again = ("dvc", "repro", "--single-item", "--force", "finetune")
    places = {"MEDTUNE_CACHE": str(tmp_path / "cache"), "MEDTUNE_PROGRESS": str(tmp_path / "progress")}
    watched = places | {VARIABLE: "tensorboard,mlflow", "MLFLOW_TRACKING_URI": server.url}

    refused = attempt(*again, cwd=project, env=places | {VARIABLE: "tensorbord"})
    assert refused.returncode
    assert "error: MEDTUNE_REPORT_TO: no tracker 'tensorbord'" in refused.stderr
    assert "Traceback" not in refused.stderr

    run(*again, cwd=project, env=places)
    without = digests(project / "models"), (project / "dvc.lock").read_bytes()
    files = run("git", "status", "--short", cwd=project)
    said = attempt(*again, cwd=project, env=watched)
    assert said.returncode == 0, said.stderr
    assert (digests(project / "models"), (project / "dvc.lock").read_bytes()) == without
    assert run("git", "status", "--short", cwd=project) == files

    ((name, found),) = server.runs().items()
    assert f"finetune: reports to tensorboard, mlflow as {name}" in said.stderr
    assert found["info"]["status"] == "FINISHED"
    parameters = {entry["key"]: entry["value"] for entry in found["data"]["params"]}
    assert parameters["parameters.finetune.learning_rate"] == "0.01"
    for split, metric, tag in (("training", "loss", "train/loss"), ("validation", "eval_loss", "eval/loss")):
        curve = [
            (int(row["step"]), float(row["loss"]))
            for row in read_csv(project / "metrics/curves/loss.csv")
            if row["examples"] == split
        ]
        assert server.history(found, metric) == curve
        drawn = scalars(tmp_path / "cache/curves/tensorboard" / name, tag)
        assert [step for step, _ in drawn] == [step for step, _ in curve]
        assert [loss for _, loss in drawn] == pytest.approx([loss for _, loss in curve], rel=1e-6)


def test_a_server_that_is_gone_is_told_and_costs_its_own_points_alone(
    tmp_path: Path, points: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with mlflow_server(tmp_path) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url.replace("//", "//somebody:secret@"))
        started = reports("mlflow", "tensorboard", name="gone")
        log(started, 1, 4.0)
        wait_for_point(server, "gone")
    log(started, 2, 3.0)
    log(started, 3, 2.0)
    started[0].close(ended=True)
    said = capfd.readouterr().err
    assert said.count("finetune: mlflow failed, no more goes there; training goes on: ") == 1
    assert "secret" not in said
    assert scalars(points / "gone", "train/loss") == [(1, 4.0), (2, 3.0), (3, 2.0)]


def test_training_waits_for_no_server(
    tmp_path: Path, points: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reporting, "PATIENCE", 2.0)
    with mlflow_server(tmp_path) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        started = reports("mlflow", name="hangs")
        log(started, 1, 4.0)
        wait_for_point(server, "hangs")
        # It accepts what comes, and answers nothing.
        group = [server.process.pid, *children(server.process.pid)]
        for process in group:
            os.kill(process, signal.SIGSTOP)
        try:
            before = time.monotonic()
            for step in range(2, 2000):
                log(started, step, 3.0)
            assert time.monotonic() - before < 1
            started[0].close(ended=True)
            assert time.monotonic() - before < 10
        finally:
            for process in group:
                os.kill(process, signal.SIGCONT)
    assert "the trackers did not end within 2 s: their last points may be missing" in capfd.readouterr().err


def children(process: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    found = [int(line) for line in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return found + [below for child in found for below in children(child)]


def test_a_run_that_was_cut_off_is_no_finished_one_and_its_successor_has_all_points(
    server: Mlflow, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    started = reports("mlflow", name="cut off")
    log(started, 1, 4.0)
    wait_for_point(server, "cut off")
    started[0].close(ended=False)
    assert server.runs()["cut off"]["info"]["status"] == "KILLED"

    resumed = Reports({"trackers": ["mlflow"], "run": "resumed", "parameters": {}})
    state = TrainerState(global_step=1, log_history=[{"step": 1, "loss": 4.0, "epoch": 0.5}])
    arguments = TrainingArguments(report_to="none", use_cpu=True)
    resumed.on_train_begin(arguments, state, TrainerControl())
    log((resumed, state, arguments), 2, 3.0)
    resumed.close(ended=True)
    found = server.runs()["resumed"]
    assert server.history(found, "loss") == [(1, 4.0), (2, 3.0)]
    assert found["info"]["status"] == "FINISHED"


def test_no_run_is_reported_where_nothing_was_trained(points: Path) -> None:
    Reports({"trackers": ["tensorboard"], "run": "none", "parameters": {}}).close(ended=True)
    assert not points.exists()


def test_the_parameters_stand_beside_the_curves(points: Path) -> None:
    started = reports("tensorboard", name="parameters")
    started[0].close(ended=True)
    events = EventAccumulator(str(points / "parameters"))
    events.Reload()
    (shown,) = events.Tensors("args/text_summary")
    assert json.loads(shown.tensor_proto.string_val[0]) == {"finetune.epochs": 1.0}
