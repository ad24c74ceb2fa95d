"""Runs stages of other folders, each in a process of its own that has torch loaded already.

    python -m medtune.explain.stage_server

reads a JSON object a line: the folder of a revision, a module of `stages` with its arguments, a file for what
it prints, and after how many training steps to stop (null: not). It answers each with the exit code, in a
line. Loading torch takes several seconds and most stages here run for less: so one process loads the
libraries, and is forked for each stage, before any thread of theirs has started. Of this repository nothing
stays loaded: a stage imports the modules of its own folder.
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("numpy", "scipy.stats", "pyarrow.parquet", "pydantic", "ruamel.yaml", "networkx", "obonet"),
    *("sacrebleu", "jinja2", "itables", "vl_convert"),
    *("torch", "datasets", "accelerate", "transformers.trainer", "peft"),
)
"""What stages import and what takes long; one that is not installed is a stage's own to complain about."""
WITHOUT_TORCH = ("stages.code", "stages.prepare")
FAILED = 1


def main() -> None:
    """Answer requests until there are no more."""
    from medtune.run.libraries import keep_out

    keep_out()
    # What answers stand on: a stage that prints is not to be read as an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        print(_forked(request) if hasattr(os, "fork") else _started(line), file=answers, flush=True)


def _forked(request: dict[str, Any]) -> int:
    if request["module"] not in WITHOUT_TORCH:
        for name in LIBRARIES:
            with suppress(ImportError):
                __import__(name)
    child = os.fork()
    if child == 0:
        os._exit(_run(request))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _started(line: str) -> int:
    command = [sys.executable, "-m", "medtune.explain.stage_server", "--one", line]
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode


def _run(request: dict[str, Any]) -> int:
    """Run a stage in this process as `python -m` would, and return its exit code."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    folder = str(Path(request["folder"]).absolute())
    os.chdir(folder)
    sys.path[:] = [folder, *(path for path in sys.path if path and Path(path).resolve() != OWN)]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("medtune", "stages")]:
        del sys.modules[name]
    sys.argv = [request["module"], *request["arguments"]]
    sys.dont_write_bytecode = True
    code = FAILED
    with tempfile.TemporaryDirectory(prefix="medtune-progress-") as progress:
        # Of an earlier run of the same inputs there may be checkpoints: here every step is to be made.
        os.environ["MEDTUNE_PROGRESS"] = progress
        try:
            if request["steps"] is not None:
                _stop_after(request["steps"], Path(request["steps_file"]))
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    return code


OWN = Path(__file__).resolve().parents[2]


def _stop_after(steps: int, file: Path) -> None:
    """Have transformers' Trainer log every step, and end with a validation and a checkpoint after some.

    By a callback of the library's: whatever trainer a revision has, its schedule is that of the whole run.
    """
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            control.should_log = True
            if state.global_step >= steps:
                control.should_evaluate = control.should_save = control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            named = ("step", "loss", "grad_norm", "learning_rate", "eval_loss")
            entries = [{name: one[name] for name in named if name in one} for one in state.log_history]
            file.write_text(json.dumps({"log": entries, "planned": state.max_steps}), encoding="utf-8")

    begin = transformers.Trainer.__init__

    def begin_and_stop(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        # Before medtune's own, one of which makes a checkpoint of another kind if none is due yet.
        self.callback_handler.callbacks.insert(0, Stop())

    transformers.Trainer.__init__ = begin_and_stop  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.exit(_run(json.loads(sys.argv[2])))
    main()
