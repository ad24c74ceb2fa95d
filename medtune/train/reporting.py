"""Curves elsewhere: what training logs goes to TensorBoard, MLflow, Trackio or W&B too, if somebody asks.

    MEDTUNE_REPORT_TO=tensorboard,mlflow dvc repro

An environment variable and no parameter: where a curve is drawn decides nothing. The Trainer's own callbacks
draw it, in a process beside the training (reporter.py). In the same one they would draw from its random
numbers, of which a checkpoint holds the state, wait for servers, and end the run with an error of theirs.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from medtune.core.cache import cache_folder
from medtune.core.errors import MedtuneError, nearest
from medtune.run import processes
from medtune.run.progress import fingerprint

VARIABLE = "MEDTUNE_REPORT_TO"
TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Those that may be chosen, by the Trainer's names for them, each with the modules of which it needs one."""
PACKAGES = {"mlflow": "mlflow-skinny"}
"""What to install for a module of another name."""
PATIENCE = 60.0
"""Seconds that the reporter has after training to hand over its last points."""


def chosen_trackers() -> list[str]:
    """The trackers that the environment asks for; MedtuneError if one is unknown or cannot be used here."""
    names = [name.strip().lower() for name in os.environ.get(VARIABLE, "").split(",")]
    chosen = [name for name in dict.fromkeys(names) if name not in ("", "none")]
    for name in chosen:
        if name not in TRACKERS:
            raise MedtuneError(f"{VARIABLE}: no tracker '{name}'; {nearest(name, list(TRACKERS))}")
        if not any(map(_is_installed, TRACKERS[name])):
            package = PACKAGES.get(name, name)
            raise MedtuneError(
                f"{VARIABLE}: {name} is not installed: "
                f"pip install --constraint requirements/runtime.txt {package}"
            )
    if "mlflow" in chosen and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise MedtuneError(
            f"{VARIABLE}: mlflow needs MLFLOW_TRACKING_URI, its server's address, such as http://127.0.0.1:5000"
        )
    return chosen


@contextmanager
def reported(trainer: Trainer, trackers: list[str], record: Mapping[str, Any]) -> Iterator[None]:
    """Have what a trainer logs within the block reported to trackers, under the parameters of a record.

    A tracker that fails, whenever it does, is told in a line; training neither waits for one nor fails.
    """
    if not trackers or not processes.is_main():
        yield
        return
    # With the time: whoever trains the same again gets a curve beside the first, not on top of it.
    run = f"finetune-{fingerprint(record)[:8]}-{datetime.now():%Y%m%d-%H%M%S}"
    reports = Reports({"trackers": trackers, "run": run, "parameters": _flat(record)})
    trainer.add_callback(reports)
    try:
        yield
    except BaseException:
        reports.close(ended=False)
        raise
    reports.close(ended=True)


class Reports(TrainerCallback):
    """Hands the points of the curves on to a reporter, from the first one of the run on.

    `about` is the first line that the reporter reads. It is started with the training: there is none for a
    run that had ended before.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        self._about = about
        self._process: subprocess.Popen[str] | None = None
        self._waiting: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._start()
        # A resumed run brings along the points up to its checkpoint, and so its curve is a whole one.
        for entry in state.log_history:
            logs = {name: value for name, value in entry.items() if name != "step"}
            self._waiting.put({"step": entry["step"], "logs": logs})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        self._waiting.put({"step": state.global_step, "logs": dict(logs or {})})

    def close(self, *, ended: bool) -> None:
        """Have the reporter end; `ended` says whether training came to its end."""
        if self._process is None:
            return
        if ended:
            self._waiting.put({"ended": True})
        self._waiting.put(None)
        try:
            code = self._process.wait(PATIENCE if ended else PATIENCE / 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            if ended:
                _say(f"the trackers did not end within {PATIENCE:.0f} s: their last points may be missing")
            return
        # What a tracker has started and left behind may keep the pipe open.
        self._teller.join(PATIENCE)
        if code:
            _say(f"the trackers ended with an error (exit code {code}): points are missing; see {self._log}")

    def _start(self) -> None:
        folder = cache_folder() / "curves"
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{self._about['run']}.log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "medtune.train.reporter", str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            # It is to have no part of a GPU's memory.
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            # Ctrl-C reaches whole groups; the reporter then still has to say that the run was cut off.
            start_new_session=True,
        )
        self._waiting.put(self._about)
        # Threads, as a pipe that is full would have the training wait.
        threading.Thread(target=self._write, daemon=True).start()
        self._teller = threading.Thread(target=self._tell, daemon=True)
        self._teller.start()

    def _write(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        # A reporter that has ended reads no more; `close` says so.
        with suppress(OSError), self._process.stdin as pipe:
            while (message := self._waiting.get()) is not None:
                pipe.write(json.dumps(message) + "\n")
                pipe.flush()

    def _tell(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                _say(line.rstrip())


def _say(line: str) -> None:
    tqdm.write(f"finetune: {line}", file=sys.stderr)


def _is_installed(module: str) -> bool:
    # A folder of that name, as wandb makes one where it runs, is found as well, and is no module.
    found = find_spec(module)
    return found is not None and found.origin is not None


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found
