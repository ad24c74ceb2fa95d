"""A stage that outlived its DVC keeps a second one from writing over its outputs."""

import os
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.run.workspace import only_here


def test_a_stage_runs_once_at_a_time_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with only_here("finetune"):
        with only_here("evaluate"):
            pass
        with (
            pytest.raises(MedtuneError, match=f"finetune still runs .* process {os.getpid()};"),
            only_here("finetune"),
        ):
            pass
    with only_here("finetune"):
        pass
