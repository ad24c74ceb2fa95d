import shutil
from pathlib import Path

import pytest
import yaml

from medtune.export.stage_file import DEPENDENCIES, declare, described
from medtune.run.lock_file import read_lock
from tests.conftest import ROOT, edit_params
from tests.project import repro


def test_the_stage_is_added_once_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    pipeline = tmp_path / "dvc.yaml"
    shutil.copy(ROOT / "dvc.yaml", pipeline)
    before = yaml.safe_load(pipeline.read_text())
    assert declare(["merged"], pipeline)
    assert not declare(["merged"], pipeline)
    assert declare(["merged", "gguf"], pipeline)
    after = yaml.safe_load(pipeline.read_text())
    assert after["stages"].pop("export") == described(["merged", "gguf"])
    assert after == before
    comments = [
        line for line in (ROOT / "dvc.yaml").read_text().splitlines() if line.lstrip().startswith("#")
    ]
    assert comments and all(line in pipeline.read_text() for line in comments)


def test_what_the_stage_depends_on_is_what_the_pipeline_makes_or_has() -> None:
    made = {item["path"] for stage in read_lock(ROOT / "dvc.lock").values() for item in stage["outs"]}
    for path in DEPENDENCIES:
        assert path in made or (ROOT / path).exists()


@pytest.mark.slow
def test_dvc_repro_exports_when_asked_to_and_only_then_again(
    finished_tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(finished_tiny_project, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(here)
    edit_params(here / "params.yaml", {"export.base_model": "org/base"})
    declare(["adapter"])
    assert repro(here) == {"export"}
    assert (here / "models/export/adapter/adapter_model.safetensors").is_file()
    assert repro(here) == set()
