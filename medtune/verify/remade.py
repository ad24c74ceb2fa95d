"""What the stages leave, made anew from what they started with and compared with what is there.

`prepare` and `evaluate` take seconds and run again, in a folder of their own. What `finetune` publishes is
made once more from its checkpoints, and records from what lies here. Each function raises a `MedtuneError`
that names the first difference.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from medtune.answer.params import AnswerParams
from medtune.answer.questions import Question
from medtune.answer.shots import drawn_shots, shots_record
from medtune.core import answers
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example, drawn_indices, read_jsonl
from medtune.core.hashing import file_sha256
from medtune.core.outputs import ENVIRONMENT_FILE, TIMING_FILE, read_json, write_json
from medtune.core.pipeline_file import PIPELINE_FILE
from medtune.core.section import PARAMS_FILE
from medtune.model.adapter import ADAPTER_FILES, CONFIG, WEIGHTS, attach_lora, publish_adapter, save_adapter
from medtune.model.base import base_folder, context_of, describe_base, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.files import locate
from medtune.model.origin import Origin
from medtune.model.params import ModelParams, PromptParams
from medtune.run.lock_file import read_lock
from medtune.run.params import ComputeParams
from medtune.train.callbacks import write_curves
from medtune.train.checkpoints import TRAINER_STATE
from medtune.train.encoding import encode_examples
from medtune.train.params import FinetuneParams
from medtune.train.trainer import TrainingResult, training_details, training_metrics

PREPARED = Path("data/prepared")
ADAPTER = Path("models/adapter")
CARD = "README.md"
CHECKPOINTS = Path("models/checkpoints")
RECORD = Path("models/record.json")
METRICS = Path("metrics")
RECORDED = (ModelParams, PromptParams, ComputeParams, FinetuneParams, AnswerParams)
"""The sections of which a record holds the parameters."""


def run_again(stage: str) -> None:
    """Run a stage in an empty folder with nothing but what it declares, and compare its outputs."""
    locked = read_lock()[stage]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # dvc.yaml has the sections of params.yaml that stages of one's own brought along.
        for name in [*(item["path"] for item in locked["deps"]), *locked["params"], PIPELINE_FILE]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(Path(name).absolute())
        run = _run(stage, folder)
        if run.returncode != 0:
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: ")
            raise MedtuneError(f"{stage} does not run on what is here: {reason}")
        # What it made, also if dvc.yaml names it no more; and the outputs, for files that it did not make.
        for name in sorted(_made_in(folder) | {item["path"] for item in locked["outs"]}):
            require_same_files(Path(name), folder / name, f"what {stage} makes of its inputs")


def _run(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the code that is here in another folder."""
    variables = {"PYTHONPATH": str(Path.cwd()), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", f"stages.{stage}"]
    return subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True)


def check_record() -> None:
    """Whether models/record.json names what finetune has in dvc.lock, as it lies here, and the adapter."""
    expected = _went_into("finetune") | {"adapter": file_sha256(ADAPTER / WEIGHTS)}
    require_equal(RECORD, json_file(RECORD), expected)


def check_answers() -> None:
    """Whether the answers say that they were given to these questions, by this base model and adapter."""
    asked = {"answer-base": answers.BASE, "answer-tuned": answers.TUNED}
    if AnswerParams.load().shots:
        asked["answer-shots"] = answers.SHOTS
    else:
        require_equal(answers.SHOTS, json_file(answers.SHOTS), {"record": {}, "too_long": [], "answers": []})
    for stage, path in asked.items():
        found, expected = json_file(path), answers.without_code(_went_into(stage))
        if stage == "answer-shots":
            expected |= _shots_shown()
        require_equal(path, found.get("record"), expected)
        compute, answer = (expected["parameters"][section] for section in ("compute", "answer"))
        two_bases = stage == "answer-tuned" and compute["quantization"] is not None and answer["unquantized"]
        if any(("unquantized" in row) != two_bases for row in found["answers"]):
            raise MedtuneError(f"{path}: 'unquantized' is not what compute and answer in params.yaml ask for")
    too_long = _too_long()
    for path in asked.values():
        if json_file(path).get("too_long") != too_long:
            raise MedtuneError(f"{path}: 'too_long' does not list what the model's context has no room for")


def check_adapter() -> None:
    """Whether the adapter's folder holds what is published of the best checkpoint, and nothing else."""
    best = CHECKPOINTS / f"checkpoint-{_history().best_step}"
    base, prompt = ModelParams.load(), PromptParams.load()
    encoder = ChatEncoder(load_tokenizer(base_folder(base)), prompt)
    origin = Origin(locate(base).sha256, ComputeParams.load().quantization, prompt)
    with TemporaryDirectory() as temporary:
        shape, published = Path(temporary) / "shape", Path(temporary) / "adapter"
        model = _untrained()
        save_adapter(model, shape, {name: torch.zeros(p.shape) for name, p in model.state_dict().items()})
        require_same_files(best / CONFIG, shape / CONFIG, f"what {PARAMS_FILE} asks for")
        require_equal(best / WEIGHTS, _shapes(best / WEIGHTS), _shapes(shape / WEIGHTS))
        publish_adapter(best, encoder, published, origin)
        for name in ADAPTER_FILES:
            require_same_files(ADAPTER / name, published / name, f"what is published of {best}")
    # DVC keeps a .gitignore there.
    unknown = {path.name for path in ADAPTER.iterdir()} - {*ADAPTER_FILES, CARD, ".gitignore"}
    if unknown:
        raise MedtuneError(f"{ADAPTER / min(unknown)}: no stage leaves such a file")


def check_training() -> None:
    """Whether metrics and curves are those of the checkpoints' history, and its counts those of the data."""
    params, history = FinetuneParams.load(), _history()
    encoder = ChatEncoder(load_tokenizer(base_folder(ModelParams.load())), PromptParams.load())
    files = (PREPARED / "train.jsonl", PREPARED / "validation.jsonl")
    training, validation = (encode_examples(read_jsonl(file), encoder, params, file) for file in files)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_json(folder / "training.json", training_metrics(history))
        write_json(
            folder / "training_details.json",
            training_details(history, _untrained(), training, validation, params),
        )
        write_curves(folder / "curves", history.log)
        for made in sorted(path for path in folder.rglob("*") if path.is_file()):
            require_same_files(METRICS / made.relative_to(folder), made, "what the checkpoints' history says")


def json_file(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = read_json(path)
    except (ValueError, RecursionError) as error:
        raise MedtuneError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise MedtuneError(f"{path}: not a JSON object")
    return content


def require_equal(where: object, found: Any, expected: Any) -> None:
    """Refuse values that differ, of any depth, by the first key that does; `where` is named in the error."""
    if key := next(differing(found, expected), None):
        raise MedtuneError(f"{where}: '{key}' is not what it should be")


def differing(found: Any, expected: Any, key: str = "") -> Iterator[str]:
    """Dotted keys that are missing, needless or of another value; "its content" of what has no keys."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for name in [*expected, *(name for name in found if name not in expected)]:
            dotted = f"{key}.{name}".removeprefix(".")
            if name in found and name in expected:
                yield from differing(found[name], expected[name], dotted)
            else:
                yield dotted
    # As text, since to Python 1, 1.0 and True are equal.
    elif json.dumps(found, sort_keys=True, default=str) != json.dumps(expected, sort_keys=True, default=str):
        yield key or "its content"


def require_same_files(here: Path, made: Path, what: str) -> None:
    """Refuse a file, or a folder's files, with other bytes than what was `made`, which is `what`."""
    names = {path.relative_to(root) for root in (here, made) for path in root.rglob("*") if path.is_file()}
    for name in sorted(names or {Path()}):
        file, other = here / name, made / name
        if not other.is_file():
            raise MedtuneError(f"{file}: no file of {what}")
        if file.read_bytes() != other.read_bytes():
            raise MedtuneError(f"{file}: not {what}")


def _made_in(folder: Path) -> set[str]:
    """Files that a stage has left in a folder of links to its inputs, but for clock, machine and locks."""
    made = {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    }
    return {path.as_posix() for path in made - {TIMING_FILE, ENVIRONMENT_FILE} if path.parts[0] != ".dvc"}


def _went_into(stage: str) -> dict[str, Any]:
    """The record that a stage would write if it ran with what lies here and the parameters of dvc.lock."""
    locked = read_lock()[stage]
    sections = locked["params"][PARAMS_FILE.name]
    return {
        "inputs": {item["path"]: file_sha256(Path(item["path"])) for item in locked["deps"]},
        "parameters": {
            kind.name: kind.of(sections).model_dump() for kind in RECORDED if kind.name in sections
        },
        "base_model": describe_base(ModelParams.of(sections)),
    }


def _too_long() -> list[str]:
    """The ids of the questions that were to be asked but that the model's context has no room for."""
    model, longest_answer = ModelParams.load(), AnswerParams.load().max_new_tokens
    encoder = ChatEncoder(load_tokenizer(base_folder(model)), PromptParams.load())
    context = context_of(_config(model))
    return [
        example.id for example in _asked() if Question.of(example, encoder).longest(longest_answer) > context
    ]


def _shots_shown() -> Mapping[str, Any]:
    """What the record of the answers with shots says of these."""
    params, kinds = AnswerParams.load(), {example.kind for example in _asked()}
    training = read_jsonl(PREPARED / "train.jsonl")
    return shots_record(drawn_shots(training, kinds, params.seed, params.shots))


def _asked() -> list[Example]:
    """The test questions that params.yaml draws."""
    params, examples = AnswerParams.load(), read_jsonl(PREPARED / "test.jsonl")
    return [examples[index] for index in drawn_indices(examples, params.seed, params.examples_per_kind)]


def _history() -> TrainingResult:
    """What the last checkpoint says of the whole training."""
    steps = [int(path.name.removeprefix("checkpoint-")) for path in CHECKPOINTS.glob("checkpoint-*")]
    if not steps:
        raise MedtuneError(f"{CHECKPOINTS}: holds no checkpoint; run `dvc pull` to fetch them")
    path = CHECKPOINTS / f"checkpoint-{max(steps)}" / TRAINER_STATE
    state = json_file(path)
    best = min(
        (entry for entry in state["log_history"] if "eval_loss" in entry), key=lambda one: one["eval_loss"]
    )
    claimed = {key: state[key] for key in ("global_step", "best_global_step", "best_metric")}
    known = {"global_step": max(steps), "best_global_step": best["step"], "best_metric": best["eval_loss"]}
    require_equal(path, claimed, known)
    return TrainingResult(
        log=state["log_history"],
        steps=max(steps),
        best_step=best["step"],
        validation_loss=best["eval_loss"],
        tokens=state["num_input_tokens_seen"],
        seconds=0,
    )


def _untrained() -> PeftModel:
    """The base model with the adapter that params.yaml asks for: shapes alone, no weights."""
    model = ModelParams.load()
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(_config(model))
    return attach_lora(base, FinetuneParams.load().lora, model)


def _config(model: ModelParams) -> PretrainedConfig:
    return AutoConfig.from_pretrained(base_folder(model), local_files_only=True, trust_remote_code=False)


def _shapes(weights: Path) -> dict[str, Any]:
    with safe_open(weights, framework="numpy") as file:
        parts = {name: file.get_slice(name) for name in sorted(file.keys())}
        return {name: [part.get_dtype(), *part.get_shape()] for name, part in parts.items()}
