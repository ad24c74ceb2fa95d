"""Training: transformers' Trainer with a loss that costs only what the answers need."""

import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import set_seed
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from medtune.core.errors import MedtuneError
from medtune.core.outputs import read_json, write_text
from medtune.model.adapter import save_adapter
from medtune.model.attention import shares_prefix
from medtune.run import processes
from medtune.run.launch import gpus_only
from medtune.train.batching import SimilarLengthBatches, cut, pad, split_batch
from medtune.train.callbacks import (
    Curves,
    EarlyStoppingCallback,
    Guard,
    ProgressBar,
    SaveByTime,
    write_curves,
)
from medtune.train.checkpoints import TRAINER_STATE, Checkpoints, seconds_taken
from medtune.train.encoding import EncodedExamples, row_lengths
from medtune.train.loss import summed_loss
from medtune.train.params import FinetuneParams

CLOCK_SUFFIXES = ("_runtime", "_per_second")
WIDTHS_ON_CUDA = 16
"""Rows are padded to a multiple of it: a new shape costs cuBLAS and the allocator a search each time."""
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What Python, torch.save and safetensors raise when a file cannot be written."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves beside the adapter; `log` is the Trainer's history of metrics."""

    log: list[dict[str, float]]
    steps: int
    best_step: int
    validation_loss: float
    tokens: int
    seconds: float


def train(trainer: "AnswerTrainer") -> TrainingResult:
    """Train the trainer's model in place, from the last good checkpoint if there is one.

    The adapter of the best validation loss is in the checkpoint of `best_step`. An interrupted run that is
    started again ends with the bytes of an undisturbed one (tests/train/test_trainer.py). Several processes
    share every batch; each needs to reach the folder of the checkpoints.
    """
    params, checkpoints = trainer.params, trainer.checkpoints
    # In a tuple, as None is what `tell` takes for "the others have nothing to say".
    (done,) = processes.tell((checkpoints.latest() if processes.is_main() else None,))
    if processes.shard_the_model() and not trainer.is_fsdp_enabled:
        raise gpus_only(params.launch)
    # The Trainer has seeded all processes alike; for dropout each needs numbers of its own.
    set_seed(params.seed, device_specific=True)
    if done is not None:
        trainer.started -= seconds_taken(done)
        tqdm.write(f"finetune: going on from step {done.name.removeprefix('checkpoint-')}")
    if done is None or not _has_ended(done):
        _go_on(trainer, done)
    # What counts is what the last checkpoint says, also if an earlier process wrote it and died thereafter.
    last = checkpoints.path(checkpoints.last())
    state = TrainerState.load_from_json(str(last / TRAINER_STATE))
    assert state.best_global_step is not None and state.best_metric is not None
    if trainer.curves is not None and processes.is_main():
        write_curves(trainer.curves, state.log_history)
    return TrainingResult(
        log=state.log_history,
        steps=state.global_step,
        best_step=state.best_global_step,
        validation_loss=state.best_metric,
        tokens=state.num_input_tokens_seen,
        seconds=seconds_taken(last),
    )


def _go_on(trainer: "AnswerTrainer", checkpoint: Path | None) -> None:
    """Train from a checkpoint, or from the start, to the end."""
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise MedtuneError(
            f"{trainer.checkpoints.folder}: holds a pickle that no training run wrote ({reason}); delete it"
        ) from None
    finally:
        trainer.progress_bar.close()


def training_metrics(result: TrainingResult) -> dict[str, float]:
    """The content of `metrics/training.json`, in nats per answer token."""
    return {"validation_loss": result.validation_loss}


def training_details(
    result: TrainingResult,
    model: PeftModel,
    training: EncodedExamples,
    validation: EncodedExamples,
    params: FinetuneParams,
) -> dict[str, Any]:
    """The content of `metrics/training_details.json`: what it took to come to the metrics, and the settings.

    Tokens of prompts include the system prompt and the template; what all examples share is counted in each.
    """
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    trainable, total = model.get_nb_trainable_parameters()
    return {
        "steps": result.steps,
        "epochs": next(entry["epoch"] for entry in reversed(result.log) if "epoch" in entry),
        "best_step": result.best_step,
        "training_loss": losses[-1],
        "examples": len(training.rows),
        "examples_left_out": len(training.dropped) + len(validation.dropped),
        "examples_shortened": len(training.shortened) + len(validation.shortened),
        "tokens_seen": result.tokens,
        "prompt_tokens": training.prompt_tokens,
        "answer_tokens": training.answer_tokens,
        "validation_examples": len(validation.rows),
        "validation_prompt_tokens": validation.prompt_tokens,
        "validation_answer_tokens": validation.answer_tokens,
        "trainable_parameters": trainable,
        "parameters": total,
        "settings": params.model_dump(),
    }


class AnswerTrainer(Trainer):
    """A Trainer whose logits are computed only where a label is, and whose history holds no clock.

    Several processes train as one: each takes its share of every batch, and the gradients meet once a step.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        training: Dataset,
        validation: Dataset,
        params: FinetuneParams,
        checkpoints: Checkpoints,
        device: torch.device,
        curves: Path | None = None,
    ) -> None:
        self.started = time.monotonic()
        self.params = params
        self.checkpoints = checkpoints
        self.curves = curves
        self.by_time, self.progress_bar = SaveByTime(), ProgressBar()
        dtype = next(model.get_base_model().parameters()).dtype
        self.widths = WIDTHS_ON_CUDA if device.type == "cuda" else 1
        self.shares_prefix = shares_prefix(params.share_prefix, model.config, dtype, device)
        _align_special_tokens(model, tokenizer)
        super().__init__(
            model=model,
            args=_arguments(params, model, checkpoints.folder, device),
            train_dataset=training,
            # The mean is over all tokens, so their order is free: sorted, batches have little padding.
            eval_dataset=validation.select(_by_length(validation)),
            data_collator=partial(pad, multiple=self.widths),
            processing_class=tokenizer,
            callbacks=[Guard(), self.progress_bar, self.by_time, *_callbacks(params, curves)],
        )
        # Without the Trainer's own bar this would print every log as a dictionary.
        self.remove_callback(PrinterCallback)
        # To mypy the Trainer has any model and any processor.
        self.model: PeftModel
        self.processing_class: PreTrainedTokenizerBase
        # The Trainer counts the labels of all batches of a step, by which the loss below divides, only for a
        # model that takes their number. It is not the model that needs it here.
        self.model_accepts_loss_kwargs = True
        # The Trainer would divide by the number of batches once more.
        self.loss_is_scaled_for_ga = True

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Forward and backward in passes of bounded size, so that long examples fit into memory.

        The losses of the passes add up to that of the batch, as `num_items_in_batch` counts all labels.
        """
        # FSDP exchanges gradients itself; DDP would do so after every pass, of which each process may
        # have another number: the others would wait for one that never comes. So its wrapper is left aside.
        trained = model if self.is_fsdp_enabled else self.accelerator.unwrap_model(model)
        losses = [
            # In a comprehension Python 3.11 does not know what a bare `super()` is.
            super(AnswerTrainer, self).training_step(trained, part, num_items_in_batch)
            for part in self._passes(inputs)
        ]
        # Only with the last batch of a step: gradients of the ones before add up in each process.
        if self.accelerator.sync_gradients and not self.is_fsdp_enabled:
            processes.average_gradients([p for p in model.parameters() if p.requires_grad])
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy over the answer tokens: their mean over the whole accumulated batch.

        A mean over each pass, or each process, would weigh a short answer more than a long one.
        """
        total, count = self._summed_loss(model, inputs)
        # `num_items_in_batch` counts the labels of all processes, and later their losses and gradients are
        # averaged: so each counts as if it were all.
        loss = total / (count if num_items_in_batch is None else num_items_in_batch) * processes.count()
        return (loss, {}) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Mean loss per answer token of the validation set (the Trainer's own averages batches)."""
        # The Trainer does this in the loop that is replaced here; `training_step` takes it back.
        self.model.eval()
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch in self.get_eval_dataloader():
                for part in self._passes(batch):
                    part_total, part_count = self._summed_loss(self.model_wrapped, self._prepare_inputs(part))
                    total += part_total.item()
                    count += part_count
        # Of Python floats, 64 bits wide, rounded once: the same in all processes and versions of Python.
        totals, counts = zip(*processes.gather((total, count)), strict=True)
        metrics = {f"{metric_key_prefix}_loss": math.fsum(totals) / sum(counts)}
        self.log(metrics)
        # For the callbacks, of which early stopping is one.
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep wall-clock figures out of the history, which is part of every checkpoint."""
        # Without a start the Trainer adds no speed of its own.
        super().log({k: v for k, v in logs.items() if not k.endswith(CLOCK_SUFFIXES)}, None)

    def _summed_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, int]:
        # The layer inside the model that is called: DDP and FSDP wrap it, PEFT puts it below its own.
        head = self.accelerator.unwrap_model(model).get_base_model().get_output_embeddings()
        return summed_loss(
            model, head, inputs["input_ids"], inputs["labels"], share_prefix=self.shares_prefix
        )

    def _passes(self, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Parts of bounded size; under FSDP the batch as it is, as all processes need equally many."""
        if self.is_fsdp_enabled:
            return [batch]
        return split_batch(batch, self.params.tokens_per_pass, self.widths)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's share of each batch, in the order of the epoch."""
        assert isinstance(self.train_dataset, Dataset)
        # The Trainer would draw examples of any length together, and compute with the padding.
        batches = SimilarLengthBatches(
            row_lengths(self.train_dataset),
            self.params.batch_size,
            self.params.seed,
            accumulation=self.params.gradient_accumulation,
            share=(processes.rank(), processes.count()),
        )
        return self._load(self.train_dataset, batches)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader[Any]:
        """This process's share of the validation set, in its order."""
        assert isinstance(self.eval_dataset, Dataset)
        batches = cut(list(range(len(self.eval_dataset))), self.params.batch_size)
        # All have equally many, empty ones too: processes that shard a model have to keep in step.
        shares = [batch[processes.rank() :: processes.count()] for batch in batches]
        return self._load(self.eval_dataset, shares)

    def _load(self, dataset: Dataset, batches: Iterable[list[int]]) -> DataLoader[Any]:
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # The batches are shares already: accelerate is not to share them out once more.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _get_output_dir(self, trial: Any) -> str:
        """Where the Trainer makes the folder of a checkpoint."""
        return str(self.checkpoints.between if self.by_time.asked else self.checkpoints.folder)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        with self._explaining_what_is_not_written():
            super()._save_checkpoint(model, trial)
        # Every process writes the state of its random numbers, and the seal is to vouch for them all.
        processes.wait()
        with self._explaining_what_is_not_written():
            if processes.is_main():
                self._seal()
        # Nobody writes the next one while old ones are deleted.
        processes.wait()

    def _seal(self) -> None:
        step, seconds = self.state.global_step, time.monotonic() - self.started
        if self.by_time.asked:
            self.checkpoints.seal_between(step, seconds)
            return
        # All other checkpoints come after a validation.
        assert self.state.best_global_step is not None
        self.checkpoints.seal(step, self.state.best_global_step, seconds)

    @contextmanager
    def _explaining_what_is_not_written(self) -> Iterator[None]:
        try:
            yield
        except WRITE_ERRORS as error:
            free = shutil.disk_usage(self.checkpoints.folder).free / 2**20
            raise MedtuneError(
                f"{self._get_output_dir(None)}/checkpoint-{self.state.global_step}: not written: {error} "
                f"({free:.0f} MiB are free); make room, then run `dvc repro` again: it goes on from the "
                "checkpoint before"
            ) from error

    def _has_unlogged_steps(self) -> bool:
        return self.state.global_step > self._globalstep_last_logged

    def _save_rng_state(self, output_dir: str) -> None:
        """Save with each process's random numbers what has added up in it since the last log.

        The Trainer saves neither its sum of losses nor that of operations, and would go on from zero. With a
        log, and so in every checkpoint that is published, there is nothing to add.
        """
        super()._save_rng_state(output_dir)
        if self._has_unlogged_steps():
            since_log = {
                "logged": self._globalstep_last_logged,
                # A number of 32 bits in one of 64, which JSON writes with all its digits: nothing is rounded.
                "loss": self._tr_loss.item(),
                "operations": self.current_flos,
            }
            # A loss may be NaN, which `write_json` refuses; the next log stops the run.
            write_text(_since_log_file(output_dir), json.dumps(since_log))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load what was saved with them: called once, after the Trainer has set its sums to zero."""
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and _since_log_file(checkpoint).is_file():
            since_log = read_json(_since_log_file(checkpoint))
            self._globalstep_last_logged = since_log["logged"]
            self._tr_loss.fill_(since_log["loss"])
            self.current_flos = since_log["operations"]

    def store_flos(self) -> None:
        """Add up the operations, but not for a checkpoint that is made because time has passed.

        They are floats, and a sum cut in other places may be rounded otherwise.
        """
        if not (self.by_time.asked and self._has_unlogged_steps()):
            super().store_flos()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Adapter and tokenizer as in `models/adapter`; no pickled arguments, no local paths."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir or ".")
            # Under FSDP `state_dict` holds the whole weights, gathered; else PEFT takes the model's own.
            save_adapter(self.model, folder, state_dict)
            self.processing_class.save_pretrained(folder)


def _align_special_tokens(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the model's configurations the tokenizer's special tokens, of which training makes no use.

    The Trainer would do so too, with a warning as if something was wrong.
    """
    for config in (model.config, model.generation_config):
        for name in SPECIAL_TOKENS:
            if (token := getattr(tokenizer, name)) is not None:
                setattr(config, name, token)


def _since_log_file(checkpoint: str) -> Path:
    return Path(checkpoint) / f"since_log_{processes.rank()}.json"


def _has_ended(checkpoint: Path) -> bool:
    """Whether training stopped with this checkpoint: after its last step, or early."""
    state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
    return state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]


def _by_length(dataset: Dataset) -> list[int]:
    lengths = row_lengths(dataset)
    return sorted(range(len(lengths)), key=lengths.__getitem__)


def _callbacks(params: FinetuneParams, curves: Path | None) -> list[TrainerCallback]:
    """Those that are there only if somebody asks for them."""
    callbacks: list[TrainerCallback] = [] if curves is None else [Curves(curves)]
    if (stopping := params.early_stopping) is not None:
        callbacks.append(EarlyStoppingCallback(stopping.patience, stopping.min_improvement))
    return callbacks


def _arguments(
    params: FinetuneParams, model: PeftModel, checkpoints: Path, device: torch.device
) -> TrainingArguments:
    weight = next(model.get_base_model().parameters())
    share = params.batch_size // processes.count()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        seed=params.seed,
        use_cpu=device.type == "cpu",
        # Autocast: the adapter is float32, and products are computed in the dtype of the base.
        bf16=weight.dtype == torch.bfloat16,
        fp16=weight.dtype == torch.float16,
        activation_checkpointing=params.gradient_checkpointing,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=share,
        gradient_accumulation_steps=params.gradient_accumulation,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.schedule,
        # Below 1 the Trainer takes it for a share of all steps.
        warmup_steps=params.warmup,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        logging_steps=params.log_every,
        eval_strategy="steps",
        eval_steps=params.evaluate_every,
        save_strategy="steps",
        save_steps=params.evaluate_every,
        # Else early stopping would lose count with every resume.
        restore_callback_states_from_checkpoint=True,
        # Has the Trainer note the best step; which checkpoints stay is decided in `Checkpoints`.
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        include_num_input_tokens_seen="non_padding",
        # The Trainer would log the mean of earlier losses in place of NaN, and `Guard` never see it.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=device.type == "cuda",
    )
    # With more GPUs in sight than processes the Trainer would copy the model onto each (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
