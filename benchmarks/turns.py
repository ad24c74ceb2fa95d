"""A Trainer that trains when it is its turn, and what is counted meanwhile."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benchmarks.flops import Work, training_flops
from benchmarks.side import by_the_processor, clock, report, turns
from medtune.model.params import LoraParams
from medtune.model.shape import Shape
from medtune.run.params import ComputeParams
from medtune.train.callbacks import ProgressBar
from medtune.train.trainer import AnswerTrainer


def compute_params() -> ComputeParams:
    """Those of params.yaml, on one thread if the processor is to tell the time."""
    compute = ComputeParams.load()
    return compute.model_copy(update={"threads": 1}) if by_the_processor() else compute


def train_in_turns(trainer: Trainer, more: Callable[[], dict[str, Any]] = dict) -> None:
    """Train until nobody asks for another turn; bars and printed logs are left out."""
    for callback in (PrinterCallback, ProgressBar):
        trainer.remove_callback(callback)
    trainer.add_callback(Turns(more))
    trainer.train()


class Turns(TrainerCallback):
    """Trains so many steps whenever it is the side's turn; the last line of `turns` ends the process.

    Reports real (unpadded) tokens, seconds, losses and norms of the gradient, and what `more` adds.
    """

    def __init__(self, more: Callable[[], dict[str, Any]] = dict) -> None:
        self._turns = turns()
        self._more = more
        self._left = 0
        self._measured: dict[str, Any] = {}

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report the turn before, if there was one, and wait for the next."""
        if not self._left:
            if self._measured:
                # Here the step before has been logged, too.
                report(self._measured | self._more())
            self._measured = {"tokens": 0, "seconds": 0.0, "losses": [], "gradient_norms": []}
            asked = next(self._turns, None)
            if asked is None:
                sys.exit()
            self._left = int(asked)
        self._start, self._seen = clock(), state.num_input_tokens_seen

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count the step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self._measured["device_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self._measured["seconds"] += clock() - self._start
        self._measured["tokens"] += state.num_input_tokens_seen - self._seen
        self._left -= 1

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Note what the step came to."""
        if logs and "loss" in logs:
            self._measured["losses"].append(logs["loss"])
            self._measured["gradient_norms"].append(logs["grad_norm"])


class Counted:
    """What an AnswerTrainer computes, pass by pass."""

    def __init__(self, trainer: AnswerTrainer, shape: Shape, lora: LoraParams) -> None:
        self._shape, self._lora = shape, lora
        self._work, self._ran = Work(0, 0, 0), 0
        trainer.model.register_forward_pre_hook(self._run, with_kwargs=True)
        compute_loss = trainer.compute_loss

        def counting(model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **options: Any) -> Any:
            before = self._ran
            loss = compute_loss(model, inputs, *args, **options)
            rows, width = inputs["input_ids"].shape
            # What ran tells whether the trainer shared a beginning, and how long it was.
            shared = (rows * width - (self._ran - before)) // (rows - 1) if rows > 1 else 0
            self._work += Work.of(inputs["attention_mask"], inputs["labels"], shared)
            return loss

        trainer.compute_loss = counting  # type: ignore[method-assign]

    def taken(self) -> dict[str, Any]:
        """What has been counted since the last time."""
        work, self._work = self._work, Work(0, 0, 0)
        flops = training_flops(self._shape, self._lora, work)
        return {"computed_tokens": work.tokens, "padding": work.padding, "flops": flops}

    def _run(self, _: nn.Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        self._ran += inputs["input_ids"].numel()


def flops_per_second(
    sizes: Sequence[tuple[int, int, int]], dtype: torch.dtype, device: torch.device
) -> float:
    """The most that products of matrices reach; a size is rows, what is summed over, and columns."""
    best = 0.0
    for rows, inner, columns in sizes:
        left = torch.randn(rows, inner, dtype=dtype, device=device)
        right = torch.randn(inner, columns, dtype=dtype, device=device)
        flops = 2 * rows * inner * columns
        times = max(1, (4 * 10**10 if device.type == "cpu" else 4 * 10**13) // flops)
        for _ in range(3):
            best = max(best, times * flops / _seconds(left, right, times))
    return best


def _seconds(left: torch.Tensor, right: torch.Tensor, times: int) -> float:
    """How long a product takes, so many times; the first one on a GPU warms up beforehand."""
    left @ right
    _wait(left.device)
    start = clock()
    for _ in range(times):
        left @ right
    _wait(left.device)
    return clock() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
