"""Progress is found again by the same identity alone, by one process at a time, and goes when it is done."""

import os
import time
from pathlib import Path

import pytest

from medtune.run.progress import FORGET_AFTER_DAYS, fingerprint, kept_progress

IDENTITY = {"data": {"train": "abc"}, "parameters": {"r": 16}}


@pytest.fixture(autouse=True)
def progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDTUNE_PROGRESS", str(tmp_path / "progress"))
    return tmp_path / "progress"


def interrupted(stage: str, identity: dict[str, object]) -> Path:
    """Leave a file, then die."""
    with pytest.raises(KeyboardInterrupt), kept_progress(stage, identity) as place:
        (place / "work").touch()
        raise KeyboardInterrupt
    return place


def test_an_interrupted_run_is_found_again() -> None:
    place = interrupted("finetune", IDENTITY)
    with kept_progress("finetune", dict(reversed(IDENTITY.items()))) as again:
        assert again == place
        assert (again / "work").exists()


@pytest.mark.parametrize(
    ("stage", "identity"),
    [
        ("finetune", IDENTITY | {"data": {"train": "abd"}}),
        ("finetune", IDENTITY | {"code": {}}),
        ("evaluation", IDENTITY),
    ],
)
def test_another_identity_starts_anew(stage: str, identity: dict[str, object]) -> None:
    interrupted("finetune", IDENTITY)
    with kept_progress(stage, identity) as place:
        assert list(place.iterdir()) == []


def test_success_leaves_nothing(progress: Path) -> None:
    interrupted("finetune", IDENTITY)
    with kept_progress("finetune", IDENTITY) as place:
        (place / "more").touch()
    assert [path.name for path in progress.iterdir()] == ["lock"]


def test_two_runs_at_once_have_a_place_each(progress: Path) -> None:
    with kept_progress("finetune", IDENTITY) as first:
        (first / "work").touch()
        with kept_progress("finetune", IDENTITY) as second:
            assert second != first
            assert list(second.iterdir()) == []
        assert (first / "work").exists()
    assert [path.name for path in progress.iterdir()] == ["lock"]


def test_what_nobody_comes_back_to_is_forgotten(progress: Path) -> None:
    old = interrupted("finetune", IDENTITY)
    recent = interrupted("finetune", IDENTITY | {"code": {}})
    then = time.time() - (FORGET_AFTER_DAYS + 1) * 24 * 3600
    for path in [*old.parent.iterdir(), old.parent]:
        os.utime(path, (then, then))
    with kept_progress("evaluation", IDENTITY):
        assert not old.exists()
        assert recent.exists()


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
