"""How long a stage will take: said where the last run says it, and else why it is not known."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune.commands import forecast
from medtune.commands.forecast import Forecast, describe_forecasts, forecasts, questions_by_kind, whole_time
from medtune.core.yaml_file import read_yaml
from tests.conftest import ROOT
from tests.project import commit, run

FILES = (
    "dvc.lock",
    "metrics/timing.json",
    "metrics/environment.json",
    "metrics/data.json",
    "metrics/details.json",
    "metrics/training_details.json",
    "configs/accelerate/single.yaml",
    "configs/accelerate/ddp.yaml",
)


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The committed run, in a folder of its own and as if it had been on this machine; its parameters."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    there = json.loads((ROOT / "metrics/environment.json").read_text())["finetune"]
    here = {name: there[name] for name in ("machine", "processor_features", "device", "threads")}
    monkeypatch.setattr(forecast, "_here", lambda _: here)
    params: dict[str, Any] = {}
    for stage in read_yaml(Path("dvc.lock"))["stages"].values():
        params |= stage["params"]["params.yaml"]
    return copy.deepcopy(params)


def of(stage: str, content: dict[str, Any]) -> Forecast:
    return next(one for one in forecasts(content) if one.stage == stage)


def test_the_same_again_takes_as_long_as_it_took(content: dict[str, Any]) -> None:
    timing = json.loads(Path("metrics/timing.json").read_text())
    found = forecasts(content)
    assert {one.stage: one.seconds for one in found} == {
        one.stage: pytest.approx(timing[one.stage]["seconds"]) for one in found
    }
    assert whole_time(found) == pytest.approx(sum(entry["seconds"] for entry in timing.values()))


def test_twice_the_epochs_take_twice_the_time_and_say_so(content: dict[str, Any]) -> None:
    before = of("finetune", content).seconds
    content["finetune"]["epochs"] = 2 * content["finetune"]["epochs"]
    after = of("finetune", content)
    assert before is not None
    assert after.seconds == pytest.approx(2 * before)
    assert "scaled from" in after.because


def test_fewer_questions_take_less_time(content: dict[str, Any]) -> None:
    content["answer"]["examples_per_kind"] = 20
    asked = questions_by_kind(content)
    assert asked is not None
    assert sum(asked.values()) == 20 * len(asked)
    found = of("answer-base", content)
    timed = json.loads(Path("metrics/timing.json").read_text())["answer-base"]["seconds"]
    assert found.seconds is not None
    assert found.seconds < timed
    assert found.because.startswith(f"{20 * len(asked)} questions, scaled from")


def test_without_shots_no_question_is_counted_for_them(content: dict[str, Any]) -> None:
    content["answer"]["shots"] = 0
    assert "questions" not in of("answer-shots", content).because


def test_what_costs_nothing_changes_nothing(content: dict[str, Any]) -> None:
    before = of("finetune", content)
    content["finetune"] |= {"seed": 1, "learning_rate": 1e-5}
    content["finetune"]["lora"]["alpha"] = 1
    assert of("finetune", content) == before


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("finetune", "tokens_per_pass", 77, "finetune.tokens_per_pass is 77, in the last run it was"),
        ("model", "source", "./other", "model.source is not that of the last run"),
        ("prompt", "system", "Answer.", "prompt.system is not that of the last run"),
        ("data", "validation", 0.33, "data was changed: how much there is to do"),
    ],
)
def test_what_costs_otherwise_is_not_known(
    content: dict[str, Any], section: str, key: str, value: object, expected: str
) -> None:
    content[section][key] = value
    found = of("finetune", content)
    assert found.seconds is None
    assert found.because.startswith(expected)
    assert whole_time(forecasts(content)) is None
    assert "cost at 2 an hour: not known" in describe_forecasts(forecasts(content), 2.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "NVIDIA T4"), ("threads", 64), ("processor_features", ["avx2"]), ("machine", "aarch64")],
)
def test_another_machine_says_nothing_of_this_one(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    here = forecast._here(content) | {name: value}
    monkeypatch.setattr(forecast, "_here", lambda _: here)
    assert [one.seconds for one in forecasts(content)] == [None] * len(forecast.STAGES)
    assert f"the last run was on another machine: its {name}" in of("finetune", content).because


def test_a_time_of_other_outputs_than_are_here_does_not_count(content: dict[str, Any]) -> None:
    """DVC restores a run from its cache without a time: metrics/timing.json is then of another run."""
    path = Path("metrics/training_details.json")
    details = json.loads(path.read_text())
    path.write_text(json.dumps(details | {"tokens_seen": 2 * details["tokens_seen"]}))
    found = of("finetune", content)
    assert found.seconds is None
    assert "another number of tokens" in found.because


def edited(file: str, changes: Callable[[dict[str, Any]], None]) -> None:
    path = Path(file)
    found = yaml.safe_load(path.read_text())
    changes(found)
    path.write_text(json.dumps(found))


def rank(value: int) -> Callable[[dict[str, Any]], None]:
    def change(lock: dict[str, Any]) -> None:
        lock["stages"]["finetune"]["params"]["params.yaml"]["finetune"]["lora"]["r"] = value

    return change


def slower(timing: dict[str, Any]) -> None:
    """As with twice the arithmetic for each token."""
    timing["finetune"]["seconds"] *= 2
    timing["finetune"]["tokens_per_second"] /= 2


@pytest.fixture
def committed(content: dict[str, Any]) -> dict[str, Any]:
    run("git", "init", "--quiet", cwd=Path.cwd())
    commit(Path.cwd(), "A run")
    return content


def test_a_time_is_that_of_the_run_that_was_committed_with_it(committed: dict[str, Any]) -> None:
    """A run of another rank is made and committed; then DVC restores the first, and no time with it."""
    first = Path("dvc.lock").read_text()
    known = of("finetune", committed).seconds
    edited("dvc.lock", rank(64))
    edited("metrics/timing.json", slower)
    commit(Path.cwd(), "Another rank")
    Path("dvc.lock").write_text(first)
    found = of("finetune", committed)
    assert found.seconds is None
    was = committed["finetune"]["lora"]["r"]
    assert found.because.endswith(f"finetune.lora.r is {was}, in the last run it was 64")
    assert "metrics/timing.json is of the run of" in found.because
    assert known is not None
    # The other stages have their times still.
    assert of("prepare", committed).seconds is not None
    commit(Path.cwd(), "Back")
    assert of("finetune", committed).seconds is None


def test_a_time_that_was_not_committed_with_the_run_that_is_here_does_not_count(
    committed: dict[str, Any],
) -> None:
    edited("metrics/timing.json", slower)
    found = of("finetune", committed)
    assert found.seconds is None
    assert "has another time than the commit, whose run is here" in found.because
    commit(Path.cwd(), "The same run, timed again")
    assert of("finetune", committed).seconds is not None


def test_a_run_that_is_not_committed_yet_has_the_time_that_is_here(committed: dict[str, Any]) -> None:
    edited("dvc.lock", rank(64))
    edited("metrics/timing.json", slower)
    committed["finetune"]["lora"]["r"] = 64
    assert of("finetune", committed).seconds is not None


def test_a_run_of_a_second_is_known_although_its_time_is_in_tenths(content: dict[str, Any]) -> None:
    path = Path("metrics/timing.json")
    timing = json.loads(path.read_text())
    tokens = json.loads(Path("metrics/training_details.json").read_text())["tokens_seen"]
    timing["finetune"] |= {"seconds": 1.0, "tokens_per_second": tokens / 0.953}
    path.write_text(json.dumps(timing))
    assert of("finetune", content).seconds == 1.0


def test_where_nothing_has_run_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert {one.because for one in forecasts({})} == {"no run was timed here yet"}
    assert questions_by_kind({}) is None


def test_the_price_is_that_of_the_time(content: dict[str, Any]) -> None:
    found = [Forecast(stage, 600.0, "") for stage in forecast.STAGES]
    assert "cost at 3 an hour: 3.00" in describe_forecasts(found, 3.0)
