"""What a stage read when it started is what it ran with, or it fails before it writes anything."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_json
from medtune.core.yaml_file import read_yaml
from medtune.data.params import DataParams
from medtune.run import stage as stage_module
from medtune.run.code import DIGESTS, digests_of
from medtune.run.stage import Run, Stage, only_here, run_stage
from medtune.train.params import FinetuneParams
from tests.conftest import ROOT, edit_params, example

INPUT = Path("data/raw")
STAGE = Stage("prepare", "prepare", (DataParams,), (INPUT,), (Path("out.json"),))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the stage depends on, as the current one."""
    monkeypatch.chdir(tmp_path)
    # Other tests of this process have imported modules that this stage does not name.
    monkeypatch.setattr(stage_module, "undeclared", lambda _: [])
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / INPUT).mkdir(parents=True)
    (tmp_path / INPUT / "questions.jsonl").write_text("{}\n")
    for name, meaning in digests_of(read_yaml(Path("params.yaml"))).items():
        write_json(DIGESTS / f"{name}.json", meaning)
    return tmp_path


def edit_seed(project: Path) -> None:
    edit_params(project / "params.yaml", {"data.seed": 8, "data.kinds.definition.train": 5})


def edit_other_section(project: Path) -> None:
    edit_params(project / "params.yaml", {"finetune.learning_rate": 0.5})


def edit_input(project: Path) -> None:
    (project / INPUT / "questions.jsonl").write_text("{} \n")


def delete_input(project: Path) -> None:
    shutil.rmtree(project / INPUT)


def edit_digest(project: Path) -> None:
    write_json(project / DIGESTS / "prepare.json", {})


def break_params(project: Path) -> None:
    (project / "params.yaml").write_text("data: [\n")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (edit_seed, "params.yaml (data.seed), params.yaml (data.kinds.definition.train)"),
        (edit_input, "data/raw"),
        (delete_input, "data/raw: not there"),
        (edit_digest, "digests/prepare.json"),
        (break_params, "params.yaml, line "),
    ],
)
def test_whatever_changes_while_it_runs_is_named(
    project: Path, edit: Callable[[Path], None], named: str
) -> None:
    run = Run.begin(STAGE)
    run.confirm()
    edit(project)
    with pytest.raises(MedtuneError, match=r"^prepare: changed while it ran: ") as error:
        run.confirm()
    assert named in str(error.value)


def test_examples_that_are_put_back_in_time_are_not_read(project: Path) -> None:
    path = INPUT / "questions.jsonl"
    original = json.dumps(example().model_dump()) + "\n"
    path.write_text(original)
    run = Run.begin(dataclasses.replace(STAGE, inputs=(path,)))
    assert run.examples(path) == [example()]
    path.write_text(original.replace(example().answer, "other"))
    with pytest.raises(MedtuneError, match=r"data/raw/questions.jsonl: changed while the stage ran"):
        run.examples(path)
    path.write_text(original)
    run.confirm()


def test_what_it_does_not_read_may_change(project: Path) -> None:
    run = Run.begin(STAGE)
    edit_other_section(project)
    run.confirm()


def test_its_parameters_stay_those_of_the_start(project: Path) -> None:
    run = Run.begin(STAGE)
    edit_seed(project)
    assert run.params(DataParams).seed == 7


def test_a_section_that_it_does_not_declare_cannot_be_read(project: Path) -> None:
    with pytest.raises(KeyError):
        Run.begin(STAGE).params(FinetuneParams)


def test_an_edited_module_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.begin(STAGE)
    edited = {name: dict(values) for name, values in run.code.items()}
    edited["modules"]["medtune/data/splits.py"] = "0" * 16
    monkeypatch.setattr(stage_module, "digest", lambda *_, **__: edited)
    with pytest.raises(MedtuneError, match=r"changed while it ran: medtune/data/splits\.py\. "):
        run.confirm()


def test_a_module_that_the_digest_file_does_not_name_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "undeclared", lambda _: ["medtune/model/chat.py"])
    with pytest.raises(
        MedtuneError, match=r"imported medtune/model/chat.py, which digests/prepare.json does not"
    ):
        Run.begin(STAGE).confirm()


def test_a_file_of_another_folder_that_was_imported_is_to_be_moved(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "undeclared", lambda _: ["portalocker.py"])
    with pytest.raises(
        MedtuneError, match=r"^prepare: imported portalocker.py, which takes the place .* rename it"
    ):
        Run.begin(STAGE).confirm()


def test_no_run_begins_beside_a_file_that_takes_the_place_of_a_library(project: Path) -> None:
    Path("portalocker.py").touch()
    with pytest.raises(MedtuneError, match=r"^portalocker.py takes the place of a library's module"):
        Run.begin(STAGE)


@pytest.mark.parametrize("content", [None, "{}", "{", '{"modules": {}, "packages": {}}'])
def test_a_digest_file_of_other_code_is_refused(project: Path, content: str | None) -> None:
    path = project / DIGESTS / "prepare.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        MedtuneError, match=r"^digests/prepare.json is not that of the code that is here; run `dvc"
    ):
        Run.begin(STAGE)


def test_a_change_after_the_outputs_fails_the_stage_too(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(run: Run) -> None:
        run.confirm()
        Path("out.json").write_text("{}")
        edit_seed(project)

    with pytest.raises(SystemExit) as exit_code:
        run_stage(STAGE, main)
    assert exit_code.value.code == 1
    assert "error: prepare: changed while it ran: params.yaml (data.seed)" in capsys.readouterr().err


def test_the_record_names_every_dependency_and_parameter(project: Path) -> None:
    record = Run.begin(STAGE).record()
    assert list(record["inputs"]) == ["data/raw", "digests/prepare.json"]
    assert record["parameters"]["data"]["seed"] == 7
    assert json.loads(json.dumps(record)) == record


def test_what_it_started_with_is_the_same_for_all_its_processes(project: Path) -> None:
    first = Run.begin(STAGE).started_with
    assert Run.begin(STAGE).started_with == first
    edit_other_section(project)
    assert Run.begin(STAGE).started_with == first
    edit_input(project)
    assert Run.begin(STAGE).started_with != first


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
