"""The whole training run on a tiny Llama: what it leaves, that it repeats, and how it fails."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_json
from medtune.model.adapter import attach_lora, copy_adapter
from medtune.model.params import ModelParams
from medtune.train.batching import IGNORED
from medtune.train.checkpoints import Checkpoints
from medtune.train.params import EarlyStoppingParams, FinetuneParams
from medtune.train.trainer import AnswerTrainer, TrainingResult, train
from tests.conftest import ROOT
from tests.tools import digests

Run = Callable[..., tuple[PeftModel, TrainingResult]]

PROGRESS = Path("progress")

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
            AnswerTrainer(model, chatml_tokenizer, rows(38), validated, params, checkpoints, device)
        )
        shutil.rmtree("models", ignore_errors=True)
        checkpoints.publish(result.steps, Path("models/checkpoints"))
        copy_adapter(checkpoints.path(result.best_step), Path("models/adapter"))
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
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert Path("models/adapter", name).read_bytes() == (saved / name).read_bytes()


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


def test_a_diverging_run_is_one_clear_error(run: Run, params: FinetuneParams) -> None:
    wild = params.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 1e30})
    with pytest.raises(MedtuneError, match=r"training diverged: .* lower finetune.learning_rate"):
        run(wild)


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
    with monkeypatch.context() as patch:
        patch.setattr(AnswerTrainer, "training_step", lambda *_: pytest.fail("trained on"))
        run(params)
    assert digests(Path("models")) == expected


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
