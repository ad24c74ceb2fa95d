import shutil
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from medtune.export.stage_file import DEPENDENCIES, declare, described
from medtune.run.lock_file import read_lock
from tests.conftest import ROOT
from tests.export.trained import create_trained
from tests.project import run


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


def test_dvc_repro_exports_when_asked_to_and_only_then_again(
    tmp_path: Path, chatml_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = create_trained(tmp_path / "here", chatml_tokenizer, chdir=monkeypatch.chdir)
    shutil.copytree(ROOT / "medtune/export", here / "medtune/export")
    shutil.copytree(ROOT / "stages", here / "stages")
    for name in DEPENDENCIES:
        if not (here / name).exists():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text("{}\n")
    (here / "metrics/answers-tuned.json").unlink()
    (here / "metrics/answers-tuned.json").write_text('{"record": {}, "answers": []}')
    (here / "dvc.yaml").write_text("stages: {}\n")
    run("dvc", "init", "--quiet", "--no-scm", cwd=here)
    declare(["adapter"])
    env = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    assert "Running stage 'export'" in run("dvc", "repro", cwd=here, env=env)
    assert (here / "models/export/adapter/adapter_model.safetensors").is_file()
    assert "Running stage" not in run("dvc", "repro", cwd=here, env=env)
