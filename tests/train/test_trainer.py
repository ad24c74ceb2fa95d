"""The whole training run on a tiny Llama: what it leaves, that it repeats, and how it fails."""

import csv
import json
import logging
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_json
from medtune.model.adapter import ADAPTER_FILES, WEIGHTS, attach_lora, publish_adapter
from medtune.model.chat import ChatEncoder
from medtune.model.origin import Origin
from medtune.model.params import ModelParams, PromptParams
from medtune.train import callbacks
from medtune.train.callbacks import write_curves
from medtune.train.checkpoints import Checkpoints
from medtune.train.encoding import IGNORED, EncodedExamples
from medtune.train.params import EarlyStoppingParams, FinetuneParams
from medtune.train.reporting import reported
from medtune.train.trainer import AnswerTrainer, TrainingResult, train, training_details, training_metrics
from tests.conftest import ROOT
from tests.tools import digests

USER = {"role": "user", "content": "What is fever?"}

Run = Callable[..., tuple[PeftModel, TrainingResult]]

PROGRESS = Path("progress")
CURVES = Path("curves")

CHECKPOINT_FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
}


def rows(count: int, start: int = 20) -> Dataset:
    """Sequences that count upwards: learnable in a few steps."""
    return Dataset.from_list(
        [
            {"input_ids": ids, "labels": [IGNORED] * 3 + ids[3:]}
            for i in range(count)
            for ids in [list(range(start + i % 50, start + i % 50 + 5 + i % 4))]
        ]
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Of products this small several threads only make waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def params(finetune_params: FinetuneParams) -> FinetuneParams:
    changes = {"batch_size": 4, "learning_rate": 0.02, "log_every": 2, "evaluate_every": 4, "epochs": 2.0}
    return finetune_params.model_copy(update=changes)


@pytest.fixture
def run(
    tiny_llama: LlamaForCausalLM,
    chatml_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Trains a fresh adapter, given parameters, as the stage does; what it leaves is below models/."""
    monkeypatch.chdir(tmp_path)
    base = {name: tensor.clone() for name, tensor in tiny_llama.state_dict().items()}
    model_params = ModelParams.load(ROOT / "params.yaml")

    def _run(params: FinetuneParams, validation: Dataset | None = None) -> tuple[PeftModel, TrainingResult]:
        set_seed(params.seed)
        fresh = LlamaForCausalLM(tiny_llama.config)
        fresh.load_state_dict(base)
        set_seed(params.seed)
        model = attach_lora(fresh, params.lora, model_params)
        PROGRESS.mkdir(exist_ok=True)
        checkpoints = Checkpoints(PROGRESS, params.keep_checkpoints)
        device, validated = torch.device("cpu"), validation or rows(9)
        result = train(
            AnswerTrainer(model, chatml_tokenizer, rows(38), validated, params, checkpoints, device, CURVES)
        )
        shutil.rmtree("models", ignore_errors=True)
        checkpoints.publish(result.steps, Path("models/checkpoints"))
        prompt = PromptParams(system="S")
        origin, encoder = Origin("0" * 64, None, prompt), ChatEncoder(chatml_tokenizer, prompt)
        publish_adapter(checkpoints.path(result.best_step), encoder, Path("models/adapter"), origin)
        write_json(Path("models/log.json"), {"log": [e for e in result.log if "train_loss" not in e]})
        shutil.rmtree(PROGRESS)
        return model, result

    return _run


def test_it_learns_and_keeps_the_best_checkpoint(run: Run, params: FinetuneParams) -> None:
    _, result = run(params)
    validation = [entry["eval_loss"] for entry in result.log if "eval_loss" in entry]
    assert validation[-1] < validation[0]
    assert result.validation_loss == min(validation)
    assert result.steps == 20
    assert result.tokens == 2 * sum(len(ids) for ids in rows(38)["input_ids"])
    kept = {path.name for path in Path("models/checkpoints").iterdir()}
    assert f"checkpoint-{result.best_step}" in kept
    assert kept >= {"checkpoint-16", "checkpoint-20"}
    saved = Path(f"models/checkpoints/checkpoint-{result.best_step}")
    assert {path.name for path in saved.iterdir()} == CHECKPOINT_FILES
    adapter = Path("models/adapter")
    for name in set(ADAPTER_FILES) - {WEIGHTS, "chat_template.jinja"}:
        assert (adapter / name).read_bytes() == (saved / name).read_bytes()
    tensors = load_file(saved / WEIGHTS)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in load_file(adapter / WEIGHTS).items())
    for name, question in (
        ("models/adapter", [USER]),
        (str(saved), [{"role": "system", "content": "S"}, USER]),
    ):
        asked = str(AutoTokenizer.from_pretrained(name).apply_chat_template(question, tokenize=False))
        assert asked.startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nWhat is fever?")


def test_two_runs_leave_the_same_bytes_and_no_clock_or_path(run: Run, params: FinetuneParams) -> None:
    run(params)
    first = digests(Path("models"))
    run(params)
    assert digests(Path("models")) == first
    for state in Path("models").rglob("trainer_state.json"):
        text = state.read_text()
        assert "_runtime" not in text
        assert "_per_second" not in text
        assert str(Path.cwd()) not in text
    for config in Path("models").rglob("adapter_config.json"):
        assert str(Path.home()) not in config.read_text()
        assert json.loads(config.read_text())["base_model_name_or_path"].startswith("package:")


def test_curves_that_go_elsewhere_change_no_byte(
    run: Run, params: FinetuneParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))
    run(params)
    without, trained = digests(Path("models")), train

    def watched(trainer: AnswerTrainer) -> TrainingResult:
        with reported(trainer, ["tensorboard"], {"parameters": {"finetune.epochs": 2.0}}):
            return trained(trainer)

    monkeypatch.setattr(sys.modules[__name__], "train", watched)
    run(params)
    assert digests(Path("models")) == without
    assert list((tmp_path / "cache/curves/tensorboard").glob("finetune-*/events*"))
    for state in Path("models/checkpoints").glob("*/trainer_state.json"):
        assert "tensorboard" not in state.read_text().lower()


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 2, "gradient_accumulation": 2},
        {"tokens_per_pass": 12},
    ],
    ids=["accumulation", "passes"],
)
def test_accumulation_and_passes_train_like_the_whole_batch(
    run: Run, params: FinetuneParams, changes: dict[str, int]
) -> None:
    once = params.model_copy(update={"epochs": 0.5})
    _, whole = run(once)
    _, parts = run(once.model_copy(update=changes))
    assert [e["step"] for e in parts.log] == [e["step"] for e in whole.log]
    for name in ("loss", "grad_norm", "eval_loss"):
        expected = [entry[name] for entry in whole.log if name in entry]
        assert expected
        assert [e[name] for e in parts.log if name in e] == pytest.approx(expected, rel=1e-4)


def test_validation_loss_is_the_mean_over_tokens(run: Run, params: FinetuneParams) -> None:
    validation = rows(9, 60)
    still = params.model_copy(update={"learning_rate": 1e-12, "epochs": 0.1})
    model, result = run(still, validation)
    total, count = 0.0, 0
    for row in validation:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        answer_tokens = int((labels != IGNORED).sum())
        total += model(input_ids=ids, labels=labels).loss.item() * answer_tokens
        count += answer_tokens
    assert result.validation_loss == pytest.approx(total / count, rel=1e-4)


def test_a_run_shorter_than_its_intervals_still_logs_validates_and_saves(
    run: Run, params: FinetuneParams
) -> None:
    _, result = run(params.model_copy(update={"epochs": 0.2, "log_every": 99, "evaluate_every": 99}))
    assert result.steps == result.best_step == 2
    assert [name for entry in result.log for name in ("loss", "eval_loss") if name in entry] == [
        "loss",
        "eval_loss",
    ]
    assert Path("models/checkpoints/checkpoint-2").is_dir()


def test_early_stopping_ends_the_run(run: Run, params: FinetuneParams) -> None:
    stopping = params.model_copy(
        update={
            "early_stopping": EarlyStoppingParams(patience=1, min_improvement=100.0),
            "evaluate_every": 2,
        }
    )
    _, result = run(stopping)
    assert result.steps == 4


def test_a_diverging_run_is_one_clear_error_in_a_line_of_its_own(
    run: Run,
    params: FinetuneParams,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    wild = params.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 1e30})
    with pytest.raises(MedtuneError) as error:
        run(wild)
    # While the error, and with it the bar, is alive: that goes when it is deleted.
    said = capfd.readouterr().err
    assert "finetune: " in said
    assert said.endswith("\n")
    assert error.match(r"training diverged: .* lower finetune.learning_rate")


class Killed(BaseException):
    """Stands in for a signal: nothing in the code under test catches it."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, steps: int, during: str) -> Iterator[None]:
    """Let training die after so many steps: in the next step, or while it writes their checkpoint."""

    def die(trainer: AnswerTrainer, *args: object, **kwargs: object) -> object:
        if trainer.state.global_step == steps:
            raise Killed
        return original(trainer, *args, **kwargs)

    original = getattr(AnswerTrainer, during)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(AnswerTrainer, during, die)
        yield


@pytest.mark.parametrize(
    ("steps", "during"),
    [
        (4, "_save_rng_state"),
        (4, "training_step"),
        (5, "training_step"),
        (8, "_save_rng_state"),
        (11, "training_step"),
        (12, "training_step"),
    ],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"keep_checkpoints": 1, "epochs": 1.6},
        {"early_stopping": EarlyStoppingParams(patience=2, min_improvement=0.5)},
    ],
    ids=["plain", "keep-one", "early-stopping"],
)
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(
    run: Run,
    params: FinetuneParams,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    steps: int,
    during: str,
) -> None:
    dropout = params.lora.model_copy(update={"dropout": 0.1})
    params = params.model_copy(update={"lora": dropout, **changes})
    _, undisturbed = run(params)
    assert undisturbed.steps > steps
    expected = digests(Path("models"))
    with killed_at(monkeypatch, steps, during):
        run(params)
    run(params)
    assert digests(Path("models")) == expected


@pytest.fixture
def saving_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint by time at every step."""
    monkeypatch.setattr(callbacks, "SAVE_AFTER", 0.0)


UNEVEN: dict[str, object] = {"log_every": 3, "evaluate_every": 7}
"""Steps with neither a log nor a validation, steps with one of them, and a validation between two logs."""


@pytest.mark.parametrize(
    "changes",
    [
        UNEVEN,
        UNEVEN | {"keep_checkpoints": 1, "epochs": 1.6},
        UNEVEN | {"batch_size": 2, "gradient_accumulation": 2},
        UNEVEN | {"early_stopping": EarlyStoppingParams(patience=1, min_improvement=0.5)},
        {"log_every": 99, "evaluate_every": 99, "epochs": 1.0},
    ],
    ids=["plain", "keep-one", "accumulation", "early-stopping", "shorter than its intervals"],
)
def test_no_output_depends_on_checkpoints_by_time(
    run: Run,
    params: FinetuneParams,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
) -> None:
    """Neither on those of a run that nobody killed, nor on those from which a killed one went on."""
    dropout = params.lora.model_copy(update={"dropout": 0.1})
    params = params.model_copy(update={"lora": dropout, **changes})
    # Sums of tenths are rounded, otherwise where they are cut otherwise.
    monkeypatch.setattr(AnswerTrainer, "floating_point_ops", lambda *_: 0.1)
    run(params)
    expected = digests(Path("models")) | digests(CURVES)
    monkeypatch.setattr(callbacks, "SAVE_AFTER", 0.0)
    run(params)
    assert digests(Path("models")) | digests(CURVES) == expected
    kills = [(1, "training_step"), (2, "_save_rng_state"), (3, "training_step"), (5, "training_step")]
    kills += [(7, "training_step"), (8, "training_step"), (9, "_save_rng_state")]
    for steps, during in kills:
        with killed_at(monkeypatch, steps, during):
            run(params)
    capsys.readouterr()
    run(params)
    assert "going on from step 8" in "".join(capsys.readouterr())
    assert digests(Path("models")) | digests(CURVES) == expected


def test_a_checkpoint_by_time_is_made_only_when_the_last_one_is_too_old(
    run: Run, params: FinetuneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def at_each_step(trainer: AnswerTrainer, *arguments: Any) -> torch.Tensor:
        nonlocal now
        now += 1.0
        return step(trainer, *arguments)

    def sealed(checkpoints: Checkpoints, step: int, seconds: float) -> None:
        steps.append(step)
        seal(checkpoints, step, seconds)

    steps: list[int] = []
    step, seal = AnswerTrainer.training_step, Checkpoints.seal_between
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(callbacks, "SAVE_AFTER", 3.0)
    monkeypatch.setattr(AnswerTrainer, "training_step", at_each_step)
    monkeypatch.setattr(Checkpoints, "seal_between", sealed)
    run(params.model_copy(update={"evaluate_every": 8}))
    # Validated, and so saved, at 8, 16 and 20.
    assert steps == [3, 6, 11, 14, 19]


@pytest.mark.usefixtures("saving_all_the_time")
def test_of_checkpoints_by_time_only_the_newest_is_there_and_none_after_a_validation(
    run: Run, params: FinetuneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(monkeypatch, 7, "training_step"):
        run(params)
    assert {path.name for path in PROGRESS.iterdir()} == {"checkpoint-4", "between"}
    assert [path.name for path in (PROGRESS / "between").iterdir()] == ["checkpoint-7"]
    with killed_at(monkeypatch, 8, "training_step"):
        run(params)
    assert {path.name for path in PROGRESS.iterdir()} == {"checkpoint-4", "checkpoint-8"}


@pytest.mark.usefixtures("saving_all_the_time")
def test_a_damaged_checkpoint_by_time_is_not_used(
    run: Run, params: FinetuneParams, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(params)
    expected = digests(Path("models"))
    with killed_at(monkeypatch, 7, "training_step"):
        run(params)
    (PROGRESS / "between/checkpoint-7/since_log_0.json").unlink()
    run(params)
    printed = "".join(capsys.readouterr())
    assert "checkpoint-7: incomplete or damaged, not used" in printed
    assert "going on from step 4" in printed
    assert digests(Path("models")) == expected


def points(name: str, examples: str | None = None) -> list[str]:
    """The steps for which a curve has a point."""
    with (CURVES / name).open() as file:
        return [row["step"] for row in csv.DictReader(file) if row.get("examples") == examples]


def test_curves_are_there_while_training_runs_and_whole_after_a_resume(
    run: Run, params: FinetuneParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with killed_at(monkeypatch, 11, "training_step"):
        run(params)
    assert points("loss.csv", "training") == ["2", "4", "6", "8", "10"]
    assert points("loss.csv", "validation") == ["4", "8"]
    assert points("learning_rate.csv") == points("gradient_norm.csv") == ["2", "4", "6", "8", "10"]
    # DVC deletes outputs before a stage runs.
    shutil.rmtree(CURVES)
    _, result = run(params)
    write_curves(tmp_path / "expected", result.log)
    assert digests(CURVES) == digests(tmp_path / "expected")
    assert len(points("loss.csv", "training")) == 10


@pytest.mark.parametrize(
    "stopping", [None, EarlyStoppingParams(patience=9, min_improvement=0.0)], ids=["plain", "early-stopping"]
)
def test_training_says_nothing_but_how_far_it_is(
    run: Run,
    params: FinetuneParams,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    stopping: EarlyStoppingParams | None,
) -> None:
    # transformers hands nothing on to the logger that pytest listens to.
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [caplog.handler])
    params = params.model_copy(update={"early_stopping": stopping})
    with killed_at(monkeypatch, 11, "training_step"):
        run(params)
    run(params)
    assert caplog.messages == []
    said = [line for line in "".join(capfd.readouterr()).replace("\r", "\n").splitlines() if line.strip()]
    assert all(line.startswith("finetune: ") for line in said)
    assert "finetune: going on from step 8" in said
    assert not [line for line in said if " 0%" in line]


def test_metrics_are_one_figure_and_the_rest_details(run: Run, params: FinetuneParams) -> None:
    model, result = run(params)
    training, validation = EncodedExamples(rows(38), ["long"]), EncodedExamples(rows(9), [], ["cut"])
    assert training_metrics(result) == {"validation_loss": result.validation_loss}
    details = training_details(result, model, training, validation, params)
    assert (details["steps"], details["examples"]) == (20, 38)
    assert (details["examples_left_out"], details["examples_shortened"]) == (1, 1)
    # Three tokens of each row are its prompt.
    assert (details["prompt_tokens"], details["validation_prompt_tokens"]) == (3 * 38, 3 * 9)
    tokens = sum(len(row["input_ids"]) for row in training.rows)
    assert details["prompt_tokens"] + details["answer_tokens"] == tokens
    assert details["tokens_seen"] == 2 * tokens
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    assert details["training_loss"] == losses[-1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "no manifest"])
def test_a_damaged_checkpoint_is_not_used(
    run: Run,
    params: FinetuneParams,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    run(params)
    expected = digests(Path("models"))
    with killed_at(monkeypatch, 13, "training_step"):
        run(params)
    optimizer = PROGRESS / "checkpoint-12/optimizer.pt"
    content = optimizer.read_bytes()
    if damage == "cut":
        optimizer.write_bytes(content[:100])
    elif damage == "flipped":
        optimizer.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    elif damage == "missing":
        optimizer.unlink()
    else:
        (optimizer.parent / "manifest.json").unlink()
    run(params)
    printed = "".join(capsys.readouterr())
    assert "checkpoint-12: incomplete or damaged, not used" in printed
    assert "going on from step 8" in printed
    assert digests(Path("models")) == expected


@pytest.mark.parametrize("epochs", [0.4, 2.0])
def test_a_run_killed_after_its_last_checkpoint_trains_no_further(
    run: Run, params: FinetuneParams, monkeypatch: pytest.MonkeyPatch, epochs: float
) -> None:
    params = params.model_copy(update={"epochs": epochs})
    run(params)
    expected = digests(Path("models"))

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "publish", die)
        run(params)
    curves = digests(CURVES)
    shutil.rmtree(CURVES)
    with monkeypatch.context() as patch:
        patch.setattr(AnswerTrainer, "training_step", lambda *_: pytest.fail("trained on"))
        run(params)
    assert digests(Path("models")) == expected
    assert digests(CURVES) == curves


class Payload:
    """A pickle that leaves a file where it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_planted_into_the_progress_is_never_run(
    run: Run, params: FinetuneParams, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with killed_at(monkeypatch, 6, "training_step"):
        run(params)
    with (PROGRESS / "checkpoint-4" / name).open("wb") as file:
        pickle.dump(Payload(), file)
    # Whoever can write there can also write a manifest that vouches for it.
    (PROGRESS / "checkpoint-4/manifest.json").unlink()
    Checkpoints(PROGRESS, 2).seal(4, 4, 1.0)
    with pytest.raises(MedtuneError, match="holds a pickle that no training run wrote"):
        run(params)
    assert not Path("executed").exists()


def test_a_checkpoint_that_cannot_be_written_is_one_clear_error_and_the_one_before_serves(
    run: Run, params: FinetuneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(params)
    expected = digests(Path("models"))

    save = AnswerTrainer._save_rng_state

    def full(trainer: AnswerTrainer, folder: str) -> None:
        if trainer.state.global_step == 8:
            raise OSError(28, "No space left on device")
        save(trainer, folder)

    with monkeypatch.context() as patch:
        patch.setattr(AnswerTrainer, "_save_rng_state", full)
        with pytest.raises(MedtuneError, match=r"checkpoint-8: not written: .*No space left"):
            run(params)
    run(params)
    assert digests(Path("models")) == expected
