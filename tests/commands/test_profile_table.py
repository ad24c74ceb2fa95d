"""The table of the profiles says what is planned and what was measured, and of no run what it was not."""

import subprocess
from pathlib import Path

import pytest

from medtune.commands import profile_table as table
from medtune.commands.profiles import list_profiles
from medtune.model import shape
from medtune.run.lock_file import read_lock
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(shape, "hf_hub_download", None)


def cells(page: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows}


def test_the_page_has_every_profile_and_the_memory_that_is_planned() -> None:
    shown, made = cells(table.PAGE.read_text(encoding="utf-8")), cells(table.profile_table())
    assert set(shown) == set(list_profiles())
    assert {name: row[:5] for name, row in shown.items()} == {name: row[:5] for name, row in made.items()}


def test_the_page_is_that_of_the_committed_run() -> None:
    changed = ["git", "diff", "--quiet", "HEAD", "--", "metrics", "dvc.lock"]
    if subprocess.run(changed, cwd=ROOT).returncode:
        pytest.skip("a run has changed the metrics of the working tree")
    made_by = "python -m medtune.commands.profile_table"
    assert table.PAGE.read_text(encoding="utf-8") == table.profile_table(), f"run: {made_by}"


def test_only_what_was_run_has_a_time_and_a_result() -> None:
    made = cells(table.profile_table())
    measured = {name for name, row in made.items() if row[-1] != table.NOT_MEASURED}
    assert measured == {"hpo", "smollm2-135m"}


def test_a_run_with_one_other_setting_is_not_that_of_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    changed = lock.replace("learning_rate: 0.001", "learning_rate: 0.002")
    assert changed != lock
    (tmp_path / "dvc.lock").write_text(changed, encoding="utf-8")
    monkeypatch.setattr(table, "read_lock", lambda: read_lock(tmp_path / "dvc.lock"))
    assert cells(table.profile_table())["smollm2-135m"][-1] == table.NOT_MEASURED
