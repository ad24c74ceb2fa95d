"""`medtune verify`: an honest run holds, and tampering breaks its link even if dvc.lock vouches for it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.run.lock_file import dvc_md5, entries, read_lock
from medtune.verify import remade, rerun
from medtune.verify.chain import (
    LINKS,
    ON_TRUST,
    PARAMETERS,
    describe_broken,
    describe_links,
    verify_chain,
)
from medtune.verify.uncommitted import uncommitted
from tests.conftest import edit_params
from tests.project import STAGES, attempt, commit, repro, run

pytestmark = pytest.mark.slow

VERIFY = (sys.executable, "-m", "medtune.commands.cli", "verify")
CODE = "code -> digests"
PREPARE = "source -> questions and their counts"
RECORD = "questions, code, parameters, base model -> record"
ADAPTER = "best checkpoint -> adapter"
TRAINING = "checkpoints -> training metrics and curves"
ANSWERS = "questions, adapter, base model -> answers"
EVALUATE = "answers -> metrics, results and card"
OTHER_PAGE = "metrics/report.html: not what evaluate makes of its inputs"
STRUCTURE = "dvc.lock has the stages of dvc.yaml"

Content = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the chain runs again runs once for the same inputs and code: most tests change neither."""
    known: dict[str, tuple[subprocess.CompletedProcess[str], Path]] = {}
    really_run = remade._run

    def content(folder: Path) -> dict[str, str]:
        paths = [Path(top, name) for top, _, names in os.walk(folder, followlinks=True) for name in names]
        return {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths if path.is_file()}

    def run_once(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
        code = [content(Path(name)) for name in ("medtune", "stages", "requirements")]
        modules = sorted(path.as_posix() for pattern in ("*", "*/*.py") for path in Path().glob(pattern))
        key = json.dumps([stage, content(folder), code, modules], sort_keys=True)
        if key not in known:
            inputs = {path for path in folder.rglob("*") if path.is_symlink()}
            done, made = really_run(stage, folder), tmp_path_factory.mktemp("made")
            for path in set(folder.rglob("*")) - inputs:
                if path.is_file():
                    copy = made / path.relative_to(folder)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy)
            known[key] = done, made
        done, made = known[key]
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remade, "_run", run_once)
        yield


@pytest.fixture
def project(finished_tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, as the current folder."""
    folder = tmp_path / "medtune"
    shutil.copytree(finished_tiny_project, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def broken() -> dict[str, str]:
    return {link.name: link.broken for link in verify_chain() if link.broken}


def replace(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def edit_json(path: str, change: Callable[[Content], object]) -> None:
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def relock(*paths: str) -> None:
    """Let dvc.lock vouch for files that were tampered with, everywhere it names them."""
    lock = Path("dvc.lock").read_text()
    for entry in entries(read_lock()):
        if entry.path in paths:
            lock = lock.replace(entry.md5, dvc_md5(Path(entry.path)))
    Path("dvc.lock").write_text(lock)


def last_state() -> str:
    steps = [int(path.name.partition("-")[2]) for path in Path("models/checkpoints").iterdir()]
    return f"models/checkpoints/checkpoint-{max(steps)}/trainer_state.json"


def best_checkpoint() -> str:
    step = json.loads(Path(last_state()).read_text())["best_global_step"]
    return f"models/checkpoints/checkpoint-{step}"


def test_the_command_says_of_every_link_that_it_holds_and_what_it_takes_on_trust(
    finished_project: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished_project, tmp_path / "medtune", symlinks=True)
    printed = run(*VERIFY, cwd=folder).splitlines()
    assert printed == [*(f"holds  {name}" for name in LINKS), f"all {len(LINKS)} links hold; {ON_TRUST}"]


def test_what_an_added_stage_made_is_taken_on_trust_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output and dvc.lock can be edited together, and all links hold."""
    monkeypatch.chdir(tmp_path)
    assert describe_links([], []).endswith(ON_TRUST)
    Path("dvc.lock").write_text("stages: {prepare: {cmd: a}, brevity: {cmd: b}}")
    said = "all 0 links hold; " + ON_TRUST + ", and the work of brevity, which no link looks at"
    assert describe_links([], []) == said


def test_the_hashes_are_those_of_dvc(project: Path) -> None:
    folders = [entry for entry in entries(read_lock()) if entry.md5.endswith(".dir")]
    checked = {entry.path for entry in folders} - {"medtune", "stages"}
    assert checked >= {"models/checkpoints", "metrics/kinds"}
    for entry in folders:
        if entry.path in checked:
            assert dvc_md5(Path(entry.path)) == entry.md5


def test_a_run_with_words_numbers_and_anchors_as_dvc_reads_them_holds(project: Path) -> None:
    rows = [json.loads(line) for line in Path("data/raw/questions.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["kind"] = ("yes", "no")[number % 3 == 0]
    Path("data/raw/questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit_params(Path("params.yaml"), {"data.kinds": "KINDS", "finetune.batch_size": "BATCH"})
    kinds = "{yes: &limits {train: 050, validation: 5, test: 12}, no: {<<: *limits, test: 010}}"
    replace("params.yaml", "kinds: KINDS", f"kinds: {kinds}")
    replace("params.yaml", "batch_size: BATCH", "batch_size: 010")
    replace("params.yaml", "  revision: null\n", "")
    repro(project)
    assert read_lock()["prepare"]["params"]["params.yaml"]["data"]["kinds"]["no"]["test"] == 10
    assert sorted(path.name for path in Path("metrics/kinds").iterdir()) == ["no.json", "yes.json"]
    assert broken() == {}


@pytest.mark.parametrize("committed", [True, False])
def test_a_file_named_like_a_library_breaks_the_chain_and_other_scripts_are_told(
    project: Path, committed: bool
) -> None:
    Path("my_script.py").touch()
    assert broken() == {}
    Path("portalocker.py").touch()
    Path("extra").mkdir()
    Path("extra/__init__.py").touch()
    assert uncommitted() == ["extra/__init__.py", "my_script.py", "portalocker.py"]
    if committed:
        commit(project, "A package of ours")
        assert uncommitted() == []
    said = "portalocker.py takes the place of a library's module"
    # What runs again is refused as well.
    assert broken().keys() == {CODE, PREPARE, EVALUATE}
    assert all(said in reason for reason in broken().values())


def test_a_changed_question_breaks_the_chain(project: Path) -> None:
    path = "data/prepared/train.jsonl"
    replace(path, '"answer": "', '"answer": "9')
    assert set(broken()) >= {PREPARE, RECORD, "every file is the one that dvc.lock names"}
    relock(path)
    # Lookups answer from the training questions.
    assert {PREPARE, RECORD} <= set(broken()) <= {PREPARE, RECORD, TRAINING, EVALUATE}


@pytest.mark.parametrize("path", ["metrics/evaluation.json", "metrics/evaluation_results.json"])
def test_an_inflated_accuracy_breaks_the_chain(project: Path, path: str) -> None:
    edit_json(path, lambda content: content.update(accuracy=0.99))
    relock(path)
    assert broken() == {EVALUATE: f"{path}: not what evaluate makes of its inputs"}


def test_an_output_that_dvc_yaml_and_dvc_lock_no_longer_name_is_compared_all_the_same(project: Path) -> None:
    path = "metrics/evaluation_results.json"
    replace("dvc.yaml", f"      - {path}\n", "")
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(re.sub(rf"    - path: {path}\n(      .*\n)+", "", lock))
    assert broken() == {}
    edit_json(path, lambda content: content.update(accuracy=0.99))
    assert broken() == {EVALUATE: f"{path}: not what evaluate makes of its inputs"}


def test_wrong_answers_that_were_dropped_from_the_results_break_the_chain(project: Path) -> None:
    path = "metrics/evaluation_results.json"

    def drop(content: Content) -> None:
        right = [row["correct"] for row in content["results"]]
        for key in ("results", "selected_indices"):
            content[key] = [one for one, kept in zip(content[key], right, strict=True) if kept]
        content["accuracy"], content["incorrect"] = 1.0, 0

    edit_json(path, drop)
    relock(path)
    assert set(broken()) == {EVALUATE}


def test_wrong_answers_that_were_dropped_from_the_answers_break_the_chain(project: Path) -> None:
    path = "metrics/answers-tuned.json"
    edit_json(path, lambda content: content["answers"].pop())
    relock(path)
    assert "is not answered" in broken()[EVALUATE]
    edit_json(path, lambda content: content["record"]["parameters"]["answer"].update(examples_per_kind=7))
    relock(path)
    assert "parameters.answer.examples_per_kind" in broken()[ANSWERS]


def test_wrong_answers_that_are_passed_off_as_too_long_break_the_chain(project: Path) -> None:
    paths = ("metrics/answers-base.json", "metrics/answers-tuned.json", "metrics/answers-shots.json")
    for path in paths[:2]:
        edit_json(path, lambda content: content["too_long"].append(content["answers"].pop()["id"]))
        relock(path)
    expected = f"{paths[0]}: 'too_long' does not list what the model's context has no room for"
    assert broken()[ANSWERS] == expected
    edit_json(paths[2], lambda content: content["too_long"].append("1"))
    relock(paths[2])
    assert broken()[ANSWERS] == f"{paths[2]}: 'too_long' is not what it should be"


def test_answers_of_a_base_that_was_not_asked_break_the_chain(project: Path) -> None:
    path = "metrics/answers-tuned.json"
    other = {"text": "made up", "tokens": 1, "truncated": False}
    edit_json(path, lambda content: [row.update(unquantized=other) for row in content["answers"]])
    relock(path)
    assert broken()[ANSWERS].startswith(
        f"{path}: 'unquantized' is not what compute and answer in params.yaml"
    )


def test_answers_to_other_questions_or_of_another_adapter_break_the_chain(project: Path) -> None:
    path = "metrics/answers-tuned.json"
    weights = "models/adapter/adapter_model.safetensors"
    edit_json(path, lambda content: content["record"]["inputs"].update({weights: "0" * 64}))
    relock(path)
    assert broken() == {ANSWERS: f"{path}: 'inputs.{weights}' is not what it should be", EVALUATE: OTHER_PAGE}


def test_a_question_asked_beyond_the_last_one_is_a_broken_link_and_no_crash(project: Path) -> None:
    path = "metrics/evaluation_results.json"
    edit_json(path, lambda content: content["selected_indices"].__setitem__(0, 10**9))
    relock(path)
    assert set(broken()) == {EVALUATE}


def test_a_scaled_alpha_breaks_the_chain(project: Path) -> None:
    path = "models/adapter/adapter_config.json"
    edit_json(path, lambda config: config.update(lora_alpha=64))
    relock(path)
    assert f"{path}: not what is published of {best_checkpoint()}" in broken()[ADAPTER]
    copy = f"{best_checkpoint()}/adapter_config.json"
    shutil.copyfile(path, copy)
    relock("models/checkpoints")
    assert broken()[ADAPTER] == f"{copy}: not what params.yaml asks for"


def test_an_adapter_from_elsewhere_breaks_the_chain(project: Path) -> None:
    path = "models/adapter/adapter_model.safetensors"
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    Path(path).write_bytes(content)
    relock(path)
    assert set(broken()) == {RECORD, ADAPTER, ANSWERS}


def test_an_adapter_of_another_shape_breaks_the_chain(project: Path) -> None:
    weights = load_file(f"{best_checkpoint()}/adapter_model.safetensors")
    twice = {name: np.concatenate([one, one]) for name, one in weights.items()}
    for folder in (best_checkpoint(), "models/adapter"):
        save_file(twice, f"{folder}/adapter_model.safetensors")
    relock("models/checkpoints", "models/adapter/adapter_model.safetensors")
    assert "lora_A.weight" in broken()[ADAPTER]


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_another_tokenizer_or_template_breaks_the_chain(project: Path, name: str) -> None:
    path = f"models/adapter/{name}"
    Path(path).write_text(Path(path).read_text() + " ")
    relock(path)
    assert broken() == {ADAPTER: f"{path}: not what is published of {best_checkpoint()}"}


def test_a_file_that_no_stage_leaves_beside_the_adapter_breaks_the_chain(project: Path) -> None:
    Path("models/adapter/adapter_model.bin").write_bytes(b"a pickle")
    assert broken() == {ADAPTER: "models/adapter/adapter_model.bin: no stage leaves such a file"}


def test_another_model_card_breaks_the_chain(project: Path) -> None:
    path = "models/adapter/README.md"
    Path(path).write_text(Path(path).read_text() + "Approved by everybody.\n")
    relock(path)
    assert broken() == {EVALUATE: f"{path}: not what evaluate makes of its inputs"}


@pytest.mark.parametrize(
    ("path", "key", "links"),
    [
        ("metrics/data.json", "examples", {PREPARE}),
        # The model card names these.
        ("metrics/training_details.json", "steps", {TRAINING, EVALUATE}),
        ("metrics/training_details.json", "examples", {TRAINING, EVALUATE}),
        ("metrics/training_details.json", "tokens_seen", {TRAINING}),
        ("metrics/training_details.json", "prompt_tokens", {TRAINING}),
        ("metrics/training_details.json", "trainable_parameters", {TRAINING}),
        ("metrics/training.json", "validation_loss", {TRAINING, EVALUATE}),
        ("metrics/details.json", "all", {EVALUATE}),
    ],
)
def test_an_invented_figure_breaks_the_chain(project: Path, path: str, key: str, links: set[str]) -> None:
    edit_json(path, lambda content: content.update({key: 12345}))
    relock(path)
    assert set(broken()) == links


def test_a_curve_that_the_history_does_not_know_breaks_the_chain(project: Path) -> None:
    path = "metrics/curves/loss.csv"
    Path(path).write_text(Path(path).read_text() + "21,validation,0.001\n")
    relock(path)
    assert broken() == {TRAINING: f"{path}: not what the checkpoints' history says", EVALUATE: OTHER_PAGE}


def test_a_kind_without_a_question_breaks_the_chain(project: Path) -> None:
    Path("metrics/kinds/surgery.json").write_text('{\n  "accuracy": 1.0\n}\n')
    relock("metrics/kinds")
    assert broken() == {EVALUATE: "metrics/kinds/surgery.json: no file of what evaluate makes of its inputs"}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda record: record.clear(), "inputs"),
        (lambda record: record["inputs"].clear(), "inputs.configs/accelerate/single.yaml"),
        (lambda record: record["inputs"].pop("digests/finetune.json"), "inputs.digests/finetune.json"),
        (lambda record: record["inputs"].update(elsewhere="0" * 64), "inputs.elsewhere"),
        (lambda record: record["parameters"].clear(), "parameters.model"),
        (lambda record: record["parameters"]["finetune"].update(epochs=9), "parameters.finetune.epochs"),
        (lambda record: record["base_model"].update(sha256="0" * 64), "base_model.sha256"),
        (lambda record: record.update(adapter="0" * 64), "adapter"),
    ],
    ids=["all", "inputs", "code", "more", "parameters", "a parameter", "base model", "adapter"],
)
def test_a_record_that_lacks_something_or_says_another_thing_breaks_the_chain(
    project: Path, change: Callable[[Content], object], key: str
) -> None:
    edit_json("models/record.json", change)
    relock("models/record.json")
    assert broken() == {RECORD: f"models/record.json: '{key}' is not what it should be"}


def test_parameters_that_were_edited_here_and_in_dvc_lock_break_the_chain(project: Path) -> None:
    edit_params(Path("params.yaml"), {"finetune.weight_decay": 0.5})
    lock = Path("dvc.lock").read_text()
    assert set(broken()) == {"the parameters are those of dvc.lock", TRAINING}
    assert lock.count("weight_decay: 0.0") == 2
    Path("dvc.lock").write_text(lock.replace("weight_decay: 0.0", "weight_decay: 0.5"))
    assert broken() == {
        RECORD: "models/record.json: 'parameters.finetune.weight_decay' is not what it should be",
        TRAINING: "metrics/training_details.json: not what the checkpoints' history says",
    }


@pytest.mark.parametrize(
    ("key", "value", "follows"),
    [
        ("prompt.system", "Answer at length.", ADAPTER),
        ("data.seed", 99, PREPARE),
        ("evaluate.partial_f1", 0.01, EVALUATE),
    ],
)
def test_an_edited_parameter_is_told_as_the_cause_of_what_breaks_with_it_and_of_nothing_else(
    project: Path, key: str, value: object, follows: str
) -> None:
    edit_params(Path("params.yaml"), {key: value})
    links = verify_chain()
    assert {link.name for link in links if link.by_parameters} == set(broken()) - {PARAMETERS}
    assert follows in broken()
    said = describe_broken(links)
    assert said is not None
    assert "only because params.yaml was edited since the run: run `dvc repro`" in said
    assert describe_links(links, []).count("(follows from params.yaml, above)") == len(broken()) - 1
    path = Path("models/adapter/chat_template.jinja")
    path.write_text(path.read_text() + " ")
    relock(str(path))
    assert ADAPTER not in {link.name for link in verify_chain() if link.by_parameters}


def test_edited_code_breaks_the_chain_and_a_comment_only_the_hash(project: Path) -> None:
    replace("medtune/train/loss.py", "\nimport torch\n", "\n# A comment\nimport torch\n")
    assert set(broken()) == {"every file is the one that dvc.lock names"}
    replace("medtune/evaluate/scoring.py", "return", "return None or")
    found = broken()
    assert "digests/evaluate.json" in found["code -> digests"]
    assert "medtune/evaluate/scoring.py" in found["code -> digests"]
    assert "evaluate does not run on what is here" in found[EVALUATE]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("cmd: python -m stages.evaluate", "cmd: 'true'", "evaluate.cmd"),
        ("path: metrics/answers-tuned.json", "path: metrics/answers-base.json", "answer-tuned.outs"),
    ],
    ids=["command", "output"],
)
def test_a_lock_file_of_another_pipeline_breaks_the_chain(
    project: Path, old: str, new: str, key: str
) -> None:
    replace("dvc.lock", old, new)
    assert broken()[STRUCTURE] == f"dvc.lock: '{key}' is not what it should be"


def test_a_stage_that_was_not_run_breaks_the_chain(project: Path) -> None:
    lock = Path("dvc.lock")
    lock.write_text(lock.read_text().partition("  evaluate:\n    cmd")[0])
    assert broken()[STRUCTURE] == "dvc.lock: 'evaluate' is not what it should be"


def test_metrics_that_no_stage_makes_break_the_chain(project: Path) -> None:
    Path("metrics/better.json").write_text('{"accuracy": 0.99}')
    pipeline = Path("dvc.yaml")
    pipeline.write_text(pipeline.read_text() + "metrics:\n  - metrics/better.json\n")
    assert broken()[STRUCTURE].startswith("metrics/better.json: no stage makes it, but `dvc metrics show`")


def test_a_stage_that_is_no_more_is_named(project: Path) -> None:
    lock = Path("dvc.lock")
    lock.write_text(lock.read_text() + "  baseline:\n    cmd: 'true'\n")
    assert broken()[STRUCTURE] == "dvc.lock: has 'baseline', a stage that dvc.yaml lacks: delete it"


def test_a_stage_that_read_another_file_than_its_producer_wrote_breaks_the_chain(project: Path) -> None:
    test = next(entry for entry in entries(read_lock()) if entry.path == "data/prepared/test.jsonl")
    before, evaluate, after = Path("dvc.lock").read_text().partition("  evaluate:\n    cmd")
    Path("dvc.lock").write_text(before + evaluate + after.replace(test.md5, "0" * 32))
    assert broken()["the stages of dvc.lock join"] == (
        "evaluate read another data/prepared/test.jsonl than prepare wrote"
    )


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"results": 1}', "[" * 100_000])
def test_no_content_of_a_file_ends_in_a_traceback(project: Path, content: str) -> None:
    paths = (
        "metrics/evaluation_results.json",
        "metrics/answers-base.json",
        "metrics/training_details.json",
        "models/record.json",
        "models/adapter/adapter_config.json",
        "digests/prepare.json",
        last_state(),
    )
    for path in paths:
        Path(path).write_text(content)
    relock(*paths, "models/checkpoints")
    assert set(broken()) >= {"code -> digests", PREPARE, RECORD, ADAPTER, TRAINING, ANSWERS, EVALUATE}


@pytest.mark.parametrize(
    "change",
    [
        {"best_global_step": 10**9},
        {"best_global_step": "../.."},
        {"best_metric": 0.001},
        {"log_history": []},
        {"log_history": [5]},
        {"global_step": None},
        {"num_input_tokens_seen": "many"},
    ],
    ids=str,
)
def test_a_history_that_cannot_be_is_a_broken_link_and_no_crash(project: Path, change: Content) -> None:
    edit_json(last_state(), lambda state: state.update(change))
    relock("models/checkpoints")
    assert set(broken()) >= {TRAINING}


@pytest.mark.parametrize(
    "content", ["", "stages: 1", "stages: {finetune: 1}", "stages: {finetune: {outs: [1]}}", "a: [", "\x00"]
)
def test_no_content_of_dvc_lock_ends_in_a_traceback(project: Path, content: str) -> None:
    Path("dvc.lock").write_text(content)
    assert set(broken()) >= {STRUCTURE, PREPARE, RECORD, ANSWERS, EVALUATE}


def test_what_was_not_pulled_is_named_and_the_exit_code_is_1(project: Path) -> None:
    Path("models/adapter/adapter_model.safetensors").unlink()
    shutil.rmtree("models/checkpoints")
    result = attempt(*VERIFY, cwd=project)
    assert result.returncode == 1
    assert "models/adapter/adapter_model.safetensors: not there; run `dvc pull` to fetch it" in result.stdout
    assert "models/checkpoints: holds no checkpoint; run `dvc pull` to fetch them" in result.stdout
    assert "links are broken" in result.stderr
    assert "Traceback" not in result.stderr


def test_programs_get_the_links_as_json(project: Path) -> None:
    Path("metrics/curves/loss.csv").write_text("")
    result = attempt(*VERIFY, "--json", cwd=project)
    found = {link["name"]: link["broken"] for link in json.loads(result.stdout)["links"]}
    assert list(found) == list(LINKS)
    assert found[TRAINING] == "metrics/curves/loss.csv: not what the checkpoints' history says"
    assert found[RECORD] is None
    assert result.returncode == 1


def test_what_is_not_as_committed_is_named_but_for_the_clock_and_the_machine(project: Path) -> None:
    for name in ("timing", "environment"):
        edit_json(f"metrics/{name}.json", lambda content: content.clear())
    assert uncommitted() == []
    Path("metrics/curves/loss.csv").write_text("")
    assert uncommitted() == ["metrics/curves/loss.csv"]


def test_another_commits_code_does_not_verify(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other, symlinks=True)
    result = attempt(*VERIFY, cwd=other, env={"PYTHONSAFEPATH": "1", "PYTHONPATH": str(project)})
    assert result.returncode == 1
    assert f"error: Python imports medtune from {project}, not from this folder" in result.stderr


def test_a_rerun_runs_every_stage_though_a_shared_cache_has_its_results(
    project: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shutil.move(".dvc/cache", shared)
    run("dvc", "config", "cache.dir", str(shared), cwd=project)
    commit(project, "A shared cache")
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(project), str(clone), cwd=tmp_path)
    shutil.copytree("data/raw", clone / "data/raw", dirs_exist_ok=True)
    (clone / "dvc.lock").unlink()
    assert "Stage 'answer-tuned' is cached" in run("dvc", "repro", cwd=clone)

    printed = run(*VERIFY, "--rerun", cwd=project)
    assert f"\nran again: {', '.join(STAGES)}\nrun again: identical\n" in printed
    assert "finetune: 20 steps" in printed
    assert "answer-tuned: 8 questions answered" in printed


def test_a_rerun_that_did_not_run_everything_shows_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "run_all", lambda *_: ["code", "prepare"])
    with pytest.raises(MedtuneError, match="DVC ran code, prepare again, but not finetune"):
        rerun.rerun(StringIO())


def test_a_rerun_that_differs_says_by_how_much_and_why_it_may(project: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(project, second, symlinks=True)
    environment = second / "metrics/environment.json"
    edit_json(str(environment), lambda noted: [stage.update(threads=7) for stage in noted.values()])
    assert rerun.compare(project, second).verdict(0.05) == "identical"
    path, weights = "metrics/evaluation.json", "models/adapter/adapter_model.safetensors"
    changed = {name: one + np.float32(0.25) for name, one in load_file(second / weights).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(second)
        edit_json(path, lambda metrics: metrics.update(token_f1=metrics["token_f1"] + 0.02))
        save_file(changed, weights)
        relock(path, weights)
    comparison = rerun.compare(project, second)
    assert comparison.outputs == [path, weights]
    assert comparison.metrics["evaluation.token_f1"] == pytest.approx(0.02)
    assert comparison.weights == pytest.approx(0.25)
    assert comparison.environment == ["threads: 1 then, 7 now"]
    assert comparison.verdict(0.05) == "within tolerance"
    assert comparison.verdict(0.01) == "different"
    shutil.copy(project / "metrics/environment.json", environment)
    assert rerun.compare(project, second).verdict(0.05) == "different", "in one environment, one result"
    edit_params(Path("params.yaml"), {"compute.deterministic": False})
    assert rerun.compare(project, second).verdict(0.05) == "within tolerance"
    assert "largest difference: 0.02 in a metric (evaluation.token_f1)" in comparison.describe(0.01)
