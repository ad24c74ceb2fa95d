"""What happens beside training: the bar, the guard against NaN, checkpoints by time, curves."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_csv
from medtune.run import processes

SAVE_AFTER = 180.0
"""Seconds without a checkpoint after which one is made, whatever step it is: so much work a kill can cost."""


class ProgressBar(TrainerCallback):
    """One line with step, loss, validation loss and real (unpadded) tokens per second."""

    _bar: "tqdm[Any] | None" = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="finetune",
            unit="step",
            disable=not processes.is_main(),
            # In a log file nothing is drawn over: a first bar at 0% would stand there for good.
            delay=0 if sys.stderr.isatty() else 1e-3,
        )
        self._start, self._tokens = time.monotonic(), state.num_input_tokens_seen
        self._shown: dict[str, str] = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # Since this start: a resumed run has seen tokens of which this clock knows nothing.
        speed = (state.num_input_tokens_seen - self._tokens) / (time.monotonic() - self._start)
        self._shown["tokens/s"] = f"{speed:.0f}"
        assert self._bar is not None
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

    def close(self) -> None:
        """End the line: an error that follows is to have one of its own."""
        if self._bar is not None:
            self._bar.close()


class Guard(TrainerCallback):
    """Logs with every validation, stops if the loss is no number."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # A validation is a checkpoint, and the loss since the last log is no part of one: the Trainer would
        # forget it if it went on from there.
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


class SaveByTime(TrainerCallback):
    """Has a checkpoint made when the last one is older than `SAVE_AFTER`.

    `asked` says whether the checkpoint of this step is made for that reason alone.
    """

    asked = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # Saving is done by all processes together, and two clocks may disagree about a step: the main one
        # decides. Where a checkpoint is due anyway all know it, and need not be told.
        self.asked = not control.should_save and processes.tell(time.monotonic() - self._saved >= SAVE_AFTER)
        control.should_save |= self.asked

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._saved = time.monotonic()


class Curves(TrainerCallback):
    """Writes the curves again with every new point, so that a person can look while training runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # DVC has deleted them; a resumed run brings along the points up to its checkpoint.
        self._write(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._write(state)

    def _write(self, state: TrainerState) -> None:
        if processes.is_main():
            write_curves(self._folder, state.log_history)


def write_curves(folder: Path, log: Sequence[Mapping[str, float]]) -> None:
    """Write a history of metrics as tables for `dvc plots`; losses are in nats per answer token."""
    losses = [
        [entry["step"], examples, entry[name]]
        for entry in log
        for name, examples in (("loss", "training"), ("eval_loss", "validation"))
        if name in entry
    ]
    write_csv(folder / "loss.csv", ["step", "examples", "loss"], losses)
    for name, logged in (("learning_rate", "learning_rate"), ("gradient_norm", "grad_norm")):
        points = [[entry["step"], entry[logged]] for entry in log if logged in entry]
        write_csv(folder / f"{name}.csv", ["step", name], points)


class EarlyStoppingCallback(transformers.EarlyStoppingCallback):
    """transformers' own, without its warning that the best adapter is not loaded when training ends.

    The one that is published comes from its checkpoint. The name stands in every checkpoint.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Say nothing."""
