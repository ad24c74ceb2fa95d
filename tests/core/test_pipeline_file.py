"""A stage that was added to dvc.yaml brings its sections and its digest file along."""

from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.pipeline_file import declared_sections, outputs_in
from medtune.core.section import Section
from medtune.evaluate.params import EvaluateParams
from tests.conftest import ROOT

PIPELINE = """
stages:
  code:
    cmd: python -m stages.code
    outs:
      - digests/prepare.json: {cache: false, persist: true}
      - digests/brevity.json
      - metrics/other.json
  brevity:
    cmd: python -m stages.brevity
    params: [brevity.longest, {params.yaml: [words], other.yaml: [elsewhere]}, {whole.yaml: }]
  each:
    foreach: [1, 2]
    do:
      cmd: echo ${item}
      params: [each]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sections_are_those_that_any_stage_has_of_this_file(folder: Path) -> None:
    assert declared_sections(Path("dvc.yaml"), "params.yaml") == {"brevity", "words", "each"}


def test_outputs_of_a_folder_keep_their_order_and_lose_their_options(folder: Path) -> None:
    found = outputs_in(Path("digests"), "code", Path("dvc.yaml"))
    assert found == [Path("digests/prepare.json"), Path("digests/brevity.json")]
    assert outputs_in(Path("digests"), "brevity", Path("dvc.yaml")) == []


def test_without_a_pipeline_nothing_is_declared(tmp_path: Path) -> None:
    assert declared_sections(tmp_path / "dvc.yaml", "params.yaml") == set()
    assert outputs_in(Path("digests"), "code", tmp_path / "dvc.yaml") == []


def test_a_section_of_a_stage_that_was_added_is_no_unknown_one(folder: Path) -> None:
    evaluate = (ROOT / "params.yaml").read_text().partition("\nevaluate:")[2].partition("\n\n")[0]
    text = f"brevity: {{longest: 3}}\nevaluate:{evaluate}\n"
    Path("params.yaml").write_text(text)
    assert EvaluateParams.load().partial_f1 == 0.5
    Path("params.yaml").write_text(text.replace("brevity", "brevty"))
    with pytest.raises(MedtuneError) as error:
        EvaluateParams.load()
    assert str(error.value) == (
        "params.yaml: unknown section 'brevty'; did you mean 'brevity'? "
        "(or one that a stage of dvc.yaml has among its params)"
    )


def test_a_section_knows_itself_where_no_pipeline_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Brevity(Section):
        name = "brevity"
        longest: int

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("brevity: {longest: 3}\n")
    assert Brevity.load().longest == 3
