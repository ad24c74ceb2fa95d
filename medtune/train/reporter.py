"""The process that draws curves elsewhere: the Trainer's own callbacks, fed from standard input.

    python -m medtune.train.reporter LOG < messages          # reporting.py starts it

First a line that says what is reported and to whom, then one for each point, then that training has ended:

    {"trackers": ["mlflow"], "run": "finetune-1a2b...", "parameters": {"parameters.finetune.epochs": 1.0}}
    {"step": 5, "logs": {"loss": 1.25, "learning_rate": 0.001}}
    {"ended": true}

Without the last one training was cut off, and where a tracker has a word for that, the run gets it. On
standard output stands, in a line each, what a user should know; what trackers print goes to LOG. No stage
imports this module: an edit of it reruns nothing.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.core.cache import cache_folder
from medtune.core.errors import run
from medtune.run.launch import forget_other_launches
from medtune.run.libraries import keep_out

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainingArguments

DEFAULTS = {
    "MLFLOW_EXPERIMENT_NAME": "medtune",
    # A server that is gone: seconds until that is known, where MLflow would try for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "TRACKIO_PROJECT": "medtune",
    "WANDB_PROJECT": "medtune",
}
NOT_SENT = ("HF_MLFLOW_LOG_ARTIFACTS", "WANDB_LOG_MODEL", "WANDB_WATCH")
"""Variables that would have the callbacks send weights, which this process does not have."""
LONGEST = 300
"""Characters of a tracker's error that are told."""

Say = Callable[[str], None]


def report(lines: Iterable[str], say: Say) -> None:
    """Hand what the lines say to the trackers that the first of them names."""
    messages = map(json.loads, lines)
    about = next(messages)
    folder = _set_up(about["run"])
    trackers = Trackers(about["trackers"], _arguments(about, folder), say)
    trackers.call("on_train_begin")
    # At once and not in a thread of MLflow's own, which would not say that it failed.
    for callback in trackers.working.values():
        if hasattr(callback, "_async_log"):
            callback._async_log = False
    if trackers.working:
        say(f"reports to {', '.join(trackers.working)} as {about['run']}")
    ended = False
    for message in messages:
        ended = message.get("ended", False)
        if not ended:
            trackers.state.global_step = message["step"]
            trackers.call("on_log", logs=message["logs"])
    if not ended:
        trackers.call_off()
    trackers.call("on_train_end")


class Trackers:
    """Callbacks by name; one that fails is told of and left out from then on."""

    def __init__(self, names: list[str], arguments: "TrainingArguments", say: Say) -> None:
        from transformers import TrainerState

        self._arguments, self._say = arguments, say
        self.state = TrainerState()
        self.working: dict[str, TrainerCallback] = {}
        for name in names:
            self._try(name, self._make)

    def call(self, event: str, **arguments: Any) -> None:
        """Tell all of an event of the Trainer."""
        from transformers import TrainerControl

        def tell(name: str) -> None:
            control = TrainerControl()
            getattr(self.working[name], event)(self._arguments, self.state, control, **arguments)

        for name in list(self.working):
            self._try(name, tell)

    def call_off(self) -> None:
        """Mark the run as one that was cut off, where trackers tell that from one that ended."""
        for name in list(self.working):
            self._try(name, _call_off)

    def _make(self, name: str) -> None:
        from transformers.integrations.integration_utils import get_reporting_integration_callbacks

        (kind,) = get_reporting_integration_callbacks([name])
        self.working[name] = kind()

    def _try(self, name: str, step: Callable[[str], None]) -> None:
        try:
            step(name)
        # Of whatever kind: each tracker has errors of its own, and W&B one that is a SystemExit.
        except (Exception, SystemExit) as error:
            self.working.pop(name, None)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            # An address may have a password in it.
            reason = re.sub(r"//[^/@\s]+@", "//", reason)[:LONGEST]
            self._say(f"{name} failed, no more goes there; training goes on: {reason}")


def _arguments(about: Mapping[str, Any], folder: Path) -> "TrainingArguments":
    """What trackers show as arguments of the Trainer: the parameters of the run."""
    from transformers import TrainingArguments

    class Shown(TrainingArguments):
        def to_dict(self) -> dict[str, Any]:
            return dict(about["parameters"])

        def to_json_string(self) -> str:
            return json.dumps(about["parameters"], indent=2)

    return Shown(
        output_dir=str(folder),
        run_name=about["run"],
        project=os.environ["TRACKIO_PROJECT"],
        report_to="none",
        use_cpu=True,
    )


def _call_off(name: str) -> None:
    if name == "mlflow":
        import mlflow

        mlflow.end_run("KILLED")
    if name == "wandb":
        import wandb

        wandb.finish(exit_code=1)


def _set_up(run_name: str) -> Path:
    """Set the variables that the callbacks read; returns the folder for what is kept on this machine."""
    folder = cache_folder() / "curves"
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in NOT_SENT:
        os.environ.pop(name, None)
    # Not in the current folder, which is the repository.
    os.environ.setdefault("WANDB_DIR", str(folder))
    boards = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", folder / "tensorboard"))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(boards / run_name)
    return folder


def main() -> None:
    """Report what comes on standard input."""
    # Before transformers is imported, which is why no module above is.
    keep_out()
    forget_other_launches()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1) as out:
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        report(sys.stdin, lambda line: print(line, file=out))


if __name__ == "__main__":
    run(main)
