"""Progress is found again by the same identity alone, one process at a time, until DVC has what it made."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from medtune.core.errors import MedtuneError
from medtune.run.lock_file import dvc_md5
from medtune.run.progress import FORGET_AFTER_DAYS, MARK, fingerprint, kept_progress

IDENTITY = {"data": {"train": "abc"}, "parameters": {"r": 16}}
OTHER = IDENTITY | {"code": {}}
OUTPUTS = (Path("models/weights"), Path("models/checkpoints"))


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a stage runs in."""
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture(autouse=True)
def progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDTUNE_PROGRESS", str(tmp_path / "progress"))
    return tmp_path / "progress/medtune-progress"


def interrupted(stage: str, identity: dict[str, object]) -> Path:
    """Leave a file, then die."""
    with pytest.raises(KeyboardInterrupt), kept_progress(stage, identity, OUTPUTS) as place:
        (place / "work").touch()
        raise KeyboardInterrupt
    return place


def done(stage: str = "finetune", identity: dict[str, object] = IDENTITY) -> Path:
    """Leave a file, write the outputs, succeed."""
    with kept_progress(stage, identity, OUTPUTS) as place:
        (place / "work").touch()
        Path("models/checkpoints/checkpoint-1").mkdir(parents=True, exist_ok=True)
        Path("models/checkpoints/checkpoint-1/state").write_text("state")
        Path("models/weights").write_text("weights")
    return place


def record(stage: str = "finetune", *, more: bool = False) -> None:
    """What DVC writes after the stage, also after one that left more than the place knows of."""
    if more:
        Path("models/checkpoints/more").touch()
    outs = [{"path": path.as_posix(), "md5": dvc_md5(path)} for path in OUTPUTS]
    with Path("dvc.lock").open("w") as file:
        YAML(typ="safe").dump({"schema": "2.0", "stages": {stage: {"cmd": "true", "outs": outs}}}, file)


def start_another() -> None:
    """Some other stage starts, and dies."""
    interrupted("answer-base", OTHER)


def test_an_interrupted_run_is_found_again() -> None:
    place = interrupted("finetune", IDENTITY)
    with kept_progress("finetune", dict(reversed(IDENTITY.items())), ()) as again:
        assert again == place
        assert (again / "work").exists()


@pytest.mark.parametrize(
    ("stage", "identity"),
    [("finetune", IDENTITY | {"data": {"train": "abd"}}), ("finetune", OTHER), ("answer-base", IDENTITY)],
)
def test_another_identity_starts_anew(stage: str, identity: dict[str, object]) -> None:
    interrupted("finetune", IDENTITY)
    with kept_progress(stage, identity, ()) as place:
        assert [path.name for path in place.iterdir()] == [MARK]


def test_two_runs_at_once_have_a_place_each() -> None:
    with kept_progress("finetune", IDENTITY, ()) as first:
        (first / "work").touch()
        with kept_progress("finetune", IDENTITY, ()) as second:
            assert second != first
            assert not (second / "work").exists()
        assert (first / "work").exists()


def test_a_stage_that_is_done_is_found_again_until_dvc_has_recorded_it() -> None:
    place = done()
    start_another()
    with pytest.raises(KeyboardInterrupt), kept_progress("finetune", IDENTITY, OUTPUTS) as again:
        assert again == place
        assert (again / "work").exists()
        raise KeyboardInterrupt


def test_a_stage_that_dvc_has_recorded_leaves_nothing(progress: Path) -> None:
    done()
    record()
    start_another()
    assert {path.name.rpartition("-")[0] for path in progress.iterdir()} == {"", "answer-base"}


def test_a_recorded_stage_that_is_forced_to_run_again_starts_anew() -> None:
    done()
    record()
    with kept_progress("finetune", IDENTITY, OUTPUTS) as place:
        assert not (place / "work").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda: Path("dvc.lock").unlink(),
        lambda: Path("dvc.lock").write_text(""),
        lambda: Path("dvc.lock").write_text(Path("dvc.lock").read_text()[:-40]),
        lambda: Path("dvc.lock").write_text("stages: {finetune: {outs: [models]}}"),
        lambda: Path("dvc.lock").write_bytes(b"\xff\x00"),
        lambda: record("another"),
        lambda: record(more=True),
    ],
    ids=["missing", "empty", "half-written", "of another shape", "no text", "another stage", "other outputs"],
)
def test_a_lock_file_that_does_not_name_just_these_outputs_deletes_nothing(
    change: Callable[[], object],
) -> None:
    place = done()
    record()
    change()
    start_another()
    assert (place / "work").exists()


def test_a_done_stage_whose_repository_is_gone_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    """The temporary copies of `dvc exp run --temp` and of the queue."""
    place = done()
    os.chdir(tmp_path)
    repository.rename(tmp_path / "elsewhere")
    start_another()
    assert not place.exists()


def test_a_stage_that_runs_again_after_it_was_done_is_not_done(repository: Path, tmp_path: Path) -> None:
    place = done()
    record()
    lock = Path("dvc.lock").rename("not-yet")
    interrupted("finetune", IDENTITY)
    Path("not-yet").rename(lock)
    start_another()
    assert (place / "work").exists()


def test_the_place_of_a_living_process_is_never_deleted(repository: Path) -> None:
    place = done()
    with kept_progress("finetune", IDENTITY, OUTPUTS) as again:
        assert again == place
        (place / MARK).write_text(json.dumps({"stage": "finetune", "repository": "/gone", "outputs": {}}))
        age(place)
        start_another()
        assert (place / "work").exists()


def age(place: Path) -> None:
    then = time.time() - (FORGET_AFTER_DAYS + 1) * 24 * 3600
    for path in [*place.parent.iterdir(), *place.iterdir(), place.parent]:
        os.utime(path, (then, then))
    os.utime(place, (then, then))


def test_what_nobody_comes_back_to_is_forgotten() -> None:
    old, recent = interrupted("finetune", IDENTITY), interrupted("finetune", OTHER)
    age(old)
    start_another()
    assert not old.parent.exists()
    assert (recent / "work").exists()


def test_what_medtune_has_not_made_is_never_deleted(progress: Path) -> None:
    interrupted("finetune", IDENTITY)
    beside, within = progress.parent / "finetune-mine/0", progress / "finetune-mine/0"
    for folder in (beside, within):
        (folder / "mine").mkdir(parents=True)
        age(folder)
    (within / MARK).write_text("{}")
    age(within)
    start_another()
    assert (beside / "mine").exists()
    assert (within / "mine").exists()


def test_a_place_that_cannot_be_written_to_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for unusable in (tmp_path / "file", tmp_path / "file/below", Path("/proc/medtune")):
        monkeypatch.setenv("MEDTUNE_PROGRESS", str(unusable))
        with (
            pytest.raises(MedtuneError, match=f"{unusable}.* cannot be written to: .*; set MEDTUNE_PROGRESS"),
            kept_progress("finetune", IDENTITY, ()),
        ):
            pass


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


HERE = {
    "threads": 2,
    "device": "cpu",
    "packages": {"torch": "2.13.0", "numpy": "2"},
    "processor_features": ["avx2"],
}


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"threads": 4}, "threads 4 then, 2 now"),
        ({"packages": {"torch": "2.12.0", "numpy": "2"}}, "torch 2.12.0 then, 2.13.0 now"),
        ({"processor_features": []}, "other processor_features"),
    ],
)
def test_progress_from_elsewhere_is_not_used_and_that_is_said(
    there: dict[str, object], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left = interrupted("finetune", IDENTITY | {"environment": HERE | there})
    assert capsys.readouterr().err == ""
    for said in (True, False):
        with (
            pytest.raises(KeyboardInterrupt),
            kept_progress("finetune", IDENTITY | {"environment": HERE}, ()) as place,
        ):
            assert place.parent != left.parent
            (place / "work").touch()
            raise KeyboardInterrupt
        error = capsys.readouterr().err
        assert (error.endswith(f"as it ran elsewhere and would give other bytes: {expected}\n")) == said
        assert bool(error) == said


def test_of_other_inputs_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted("finetune", OTHER | {"environment": HERE | {"threads": 4}})
    interrupted("finetune", IDENTITY | {"environment": HERE})
    assert capsys.readouterr().err == ""
