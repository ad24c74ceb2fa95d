"""Training: transformers' Trainer with a loss that costs only what the answers need."""

import json
import math
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
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
from transformers import (
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from medtune.core.errors import MedtuneError
from medtune.model.adapter import save_adapter
from medtune.run import processes
from medtune.train.batching import EncodedExamples, SimilarLengthBatches, cut, pad, split_batch
from medtune.train.checkpoints import TRAINER_STATE, Checkpoints
from medtune.train.loss import summed_loss
from medtune.train.params import FinetuneParams

CLOCK_SUFFIXES = ("_runtime", "_per_second")
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
    done = processes.tell((checkpoints.latest() if processes.is_main() else None,))[0]
    if done is not None:
        trainer.started -= checkpoints.seconds(done)
    if processes.shard_the_model() and not trainer.is_fsdp_enabled:
        raise MedtuneError(
            f"params.yaml: finetune.launch is '{params.launch}', which shards a model on GPUs only; accepted "
            "on a CPU: single, ddp"
        )
    # The Trainer has seeded all processes alike; for dropout each needs numbers of its own.
    set_seed(params.seed, device_specific=True)
    if done is not None:
        tqdm.write(f"finetune: going on from step {done}")
    if done is None or not _has_ended(checkpoints.path(done)):
        try:
            trainer.train(resume_from_checkpoint=None if done is None else str(checkpoints.path(done)))
        except UnpicklingError as error:
            reason = str(error).splitlines()[0]
            raise MedtuneError(
                f"{checkpoints.folder}: holds a pickle that no training run wrote ({reason}); delete it"
            ) from None
    last = checkpoints.last()
    state = TrainerState.load_from_json(str(checkpoints.path(last) / TRAINER_STATE))
    assert state.best_global_step is not None and state.best_metric is not None
    return TrainingResult(
        log=state.log_history,
        steps=last,
        best_step=state.best_global_step,
        validation_loss=state.best_metric,
        tokens=state.num_input_tokens_seen,
        seconds=checkpoints.seconds(last),
    )


def training_metrics(
    result: TrainingResult, model: PeftModel, training: EncodedExamples, validation: EncodedExamples
) -> dict[str, float]:
    """The content of `metrics/training.json`; losses are in nats per answer token."""
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    trainable, total = model.get_nb_trainable_parameters()
    return {
        "steps": result.steps,
        "best_step": result.best_step,
        "validation_loss": result.validation_loss,
        "training_loss": losses[-1],
        "examples": len(training.rows),
        "examples_left_out": len(training.dropped) + len(validation.dropped),
        "tokens_seen": result.tokens,
        "answer_tokens": training.answer_tokens,
        "trainable_parameters": trainable,
        "parameters": total,
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
    ) -> None:
        self.started = time.monotonic()
        self.params = params
        self.checkpoints = checkpoints
        super().__init__(
            model=model,
            args=_arguments(params, model, checkpoints.folder, device),
            train_dataset=training,
            eval_dataset=validation.select(_by_length(validation)),
            data_collator=pad,
            processing_class=tokenizer,
            callbacks=_callbacks(params),
        )
        self.remove_callback(PrinterCallback)
        self.model: PeftModel
        self.processing_class: PreTrainedTokenizerBase
        # The loss below divides by the number of labels in the whole batch, which the Trainer must count.
        self.model_accepts_loss_kwargs = True
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
        # have another number, so its wrapper is left aside.
        trained = model if self.is_fsdp_enabled else self.accelerator.unwrap_model(model)
        losses = [
            super(AnswerTrainer, self).training_step(trained, part, num_items_in_batch)
            for part in self._passes(inputs)
        ]
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

        Losses and gradients of the processes are averaged later, so each counts as if it were all.
        """
        total, count = self._summed_loss(model, inputs)
        loss = total / (count if num_items_in_batch is None else num_items_in_batch) * processes.count()
        return (loss, {}) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Mean loss per answer token of the validation set (the Trainer's own averages batches)."""
        self.model.eval()
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch in self.get_eval_dataloader():
                for part in self._passes(batch):
                    part_total, part_count = self._summed_loss(self.model_wrapped, self._prepare_inputs(part))
                    total += part_total.item()
                    count += part_count
        shares = processes.gather((total, count))
        total, count = sum(share[0] for share in shares), sum(share[1] for share in shares)
        metrics = {f"{metric_key_prefix}_loss": total / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep wall-clock figures out of the history, which is part of every checkpoint."""
        super().log({k: v for k, v in logs.items() if not k.endswith(CLOCK_SUFFIXES)}, None)

    def _summed_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, int]:
        head = self.accelerator.unwrap_model(model).get_base_model().get_output_embeddings()
        return summed_loss(model, head, inputs["input_ids"], inputs["labels"])

    def _passes(self, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Parts of bounded size; under FSDP the batch as it is, as all processes need equally many."""
        return [batch] if self.is_fsdp_enabled else split_batch(batch, self.params.tokens_per_pass)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's share of each batch, in the order of the epoch."""
        assert isinstance(self.train_dataset, Dataset)
        batches = SimilarLengthBatches(
            [len(ids) for ids in self.train_dataset["input_ids"]],
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
            dataset, batch_sampler=batches, collate_fn=pad, pin_memory=self.args.dataloader_pin_memory
        )
        # The batches are shares already: accelerate is not to share them out once more.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        step = self.state.global_step
        try:
            super()._save_checkpoint(model, trial)
        except WRITE_ERRORS as error:
            raise self._not_written(step, error) from error
        assert self.state.best_global_step is not None
        processes.wait()
        try:
            if processes.is_main():
                self.checkpoints.seal(step, self.state.best_global_step, time.monotonic() - self.started)
        except WRITE_ERRORS as error:
            raise self._not_written(step, error) from error
        processes.wait()

    def _not_written(self, step: int, error: Exception) -> MedtuneError:
        free = shutil.disk_usage(self.checkpoints.folder).free / 2**20
        return MedtuneError(
            f"{self.checkpoints.path(step)}: not written: {error} ({free:.0f} MiB are free); make room, "
            "then run `dvc repro` again: it goes on from the checkpoint before"
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Adapter and tokenizer as in `models/adapter`; no pickled arguments, no local paths."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir or ".")
            save_adapter(self.model, folder, state_dict)
            self.processing_class.save_pretrained(folder)


class ProgressBar(TrainerCallback):
    """One line with step, loss, validation loss and real (unpadded) tokens per second."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="finetune",
            unit="step",
            disable=not processes.is_main(),
        )
        self._start, self._tokens = time.monotonic(), state.num_input_tokens_seen
        self._shown: dict[str, str] = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        speed = (state.num_input_tokens_seen - self._tokens) / (time.monotonic() - self._start)
        self._shown["tokens/s"] = f"{speed:.0f}"
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        names = {"loss": "loss", "eval_loss": "validation"}
        self._shown |= {names[k]: f"{v:.3f}" for k, v in (logs or {}).items() if k in names}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar.close()


class Guard(TrainerCallback):
    """Validates after the last step too, logs with every validation, stops if the loss is no number."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        control.should_log |= control.should_evaluate

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                raise MedtuneError(
                    f"training diverged: {name} is {(logs or {})[name]} at step {state.global_step}; "
                    "lower finetune.learning_rate or finetune.max_grad_norm in params.yaml"
                )


def _has_ended(checkpoint: Path) -> bool:
    """Whether training stopped with this checkpoint: after its last step, or early."""
    state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
    return state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]


def _by_length(dataset: Dataset) -> list[int]:
    lengths = [len(ids) for ids in dataset["input_ids"]]
    return sorted(range(len(lengths)), key=lengths.__getitem__)


def _callbacks(params: FinetuneParams) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [Guard(), ProgressBar()]
    if params.early_stopping is not None:
        callbacks.append(
            EarlyStoppingCallback(params.early_stopping.patience, params.early_stopping.min_improvement)
        )
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
        bf16=weight.dtype == torch.bfloat16,
        fp16=weight.dtype == torch.float16,
        activation_checkpointing=params.gradient_checkpointing,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=share,
        gradient_accumulation_steps=params.gradient_accumulation,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.schedule,
        warmup_steps=params.warmup,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        logging_steps=params.log_every,
        eval_strategy="steps",
        eval_steps=params.evaluate_every,
        save_strategy="steps",
        save_steps=params.evaluate_every,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        include_num_input_tokens_seen="non_padding",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )
    # With more GPUs in sight than processes the Trainer would copy the model onto each (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
