"""`medtune search`: settings of the training with a lower validation loss than the commit's, through Optuna.

Each trial is a DVC experiment, up to the stage finetune: the validation loss decides which is the best, and
no trial is asked the test questions. They are to say, once, what the chosen one is worth; the best of twenty
by the test would look better than it is.

What is tried next depends on the seed, the trials so far and nothing else. Optuna's study lies in
`.dvc/searches/`, named after all that decides it, as in `lora-0f3a5c12`: a search that was killed goes on,
and one with another space, other data or other code is another search. What is shown of a trial is read from
the commit of its experiment, not from the study.
"""

import hashlib
import json
import math
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from dvc.utils.flatten import flatten
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medtune.commands.experiments import (
    command_of,
    commits_named,
    folders_of,
    forget_killed,
    only_here,
    require_reproduced,
    stages_of,
    start_dvc,
)
from medtune.commands.search_space import Range, Search, Space, Value, read_search
from medtune.core.errors import MedtuneError
from medtune.core.git import git
from medtune.core.outputs import read_csv
from medtune.core.section import PARAMS_FILE
from medtune.evaluate.seeds import SEEDS_FILE
from medtune.run.lock_file import read_lock
from medtune.run.progress import fingerprint
from medtune.run.stage import LOCKS

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

STUDIES = Path(".dvc/searches")
"""Of each search a study and what DVC printed of its trials; git ignores it, and it is no stage's output."""
STAGE = "finetune"
METRICS = "metrics/training.json"
CURVE = "metrics/curves/loss.csv"
BEGAN = LOCKS / f"medtune-{STAGE}.pid"
"""What the stage writes when it begins: an older curve stands in its place until then."""
POLL = 0.3
"""Seconds between looks at a curve."""
UNDISTURBED = 3
"""No training is stopped in the first of so many parts, where the learning rate still rises."""
REPEATS = 200
"""Times in a row that something is proposed that was tried, after which there is taken to be nothing new."""
DIVERGED = "training diverged"
STEPS = "steps"
"""What the study knows beside its trials: of how many steps a training is, and the commit it began on."""
COMMIT, REPEATED, STOPPED = "commit", "repeats", "stopped"
"""What the study knows of a trial beside values: the commit it is, the trial it repeats, why it stopped."""


@dataclass(frozen=True)
class Tried:
    """A trial that is over: `loss` is the lowest validation loss of a whole training, in nats per token.

    `name` is that of its experiment, or the commit for the one that the search began on.
    """

    name: str
    params: Mapping[str, Value]
    loss: float | None
    state: str = ""


@dataclass(frozen=True)
class Found:
    """What a search has found: the run of the commit, and every trial."""

    name: str
    commit: Tried
    trials: Sequence[Tried]
    exhausted: bool = False

    @property
    def best(self) -> Tried | None:
        """The trial with the lowest validation loss, if that is below the commit's."""
        done = [trial for trial in self.trials if trial.loss is not None]
        best = min(done, key=lambda trial: trial.loss or 0.0, default=None)
        return best if best and best.loss is not None and best.loss < (self.commit.loss or 0.0) else None


@dataclass(frozen=True)
class _Searched:
    """A search in this repository: its name, what it may try, the fingerprint of what all trials share."""

    name: str
    search: Search
    space: Space
    shared: str
    lock: int = field(default=-1)


def search(name: str, trials: int | None = None) -> Found:
    """Run what is missing of the trials of `searches/NAME.yaml`, `trials` of them (default: as it says)."""
    _require_optuna()
    plan, space = read_search(name)
    wanted = plan.trials if trials is None else trials
    if wanted < 1:
        raise MedtuneError(f"--trials is {wanted}: must be 1 or more")
    require_reproduced(beside=[SEEDS_FILE])
    shared = _shared(read_lock(), space)
    rules = plan.model_dump(exclude={"trials"}) | {"shared": shared}
    full_name = f"{name}-{fingerprint(rules)[:8]}"
    with only_here("medtune search") as lock:
        this = _Searched(full_name, plan, space, shared, lock)
        study = _study(this)
        exhausted = _run(this, study, wanted)
        return _found(this, study, exhausted)


def describe_search(found: Found) -> str:
    """A table for people, and what to do with it."""
    lines = _table(found)
    if found.exhausted:
        lines.append("nothing new was proposed: the space is tried out, or nearly so")
    best = found.best
    if best is None:
        return "\n".join(
            [*lines, "no trial has a lower validation loss than the commit: there is nothing to take"]
        )
    lines += [
        f"best by validation loss: {best.name}, {best.loss:.4f}; the commit has {found.commit.loss:.4f}",
        f"The lowest of {len(found.trials)} is partly luck. No trial was asked the test questions; ask it:",
        f"    dvc exp apply {best.name} && dvc repro && medtune diff HEAD",
    ]
    return "\n".join(lines)


def search_as_json(found: Found) -> str:
    """The same for programs, with every validation loss unrounded."""
    best = found.best
    content = {
        "search": found.name,
        "best": best.name if best else None,
        "exhausted": found.exhausted,
        "commit": _as_json(found.commit),
        "trials": [_as_json(trial) for trial in found.trials],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _as_json(trial: Tried) -> dict[str, Any]:
    return {
        "name": trial.name,
        "params": dict(trial.params),
        "validation_loss": trial.loss,
        "state": trial.state or "success",
    }


def _table(found: Found) -> list[str]:
    table = Table(box=None, pad_edge=False)
    keys = list(found.commit.params)
    best = found.best
    table.add_column("run", no_wrap=True)
    for header in [*(key.partition(".")[2] for key in keys), "validation_loss"]:
        table.add_column(header, no_wrap=True, justify="right")
    table.add_column("", no_wrap=True)
    for trial in (found.commit, *found.trials):
        values = [_cell(trial.params.get(key)) for key in keys]
        loss = "" if trial.loss is None else f"{trial.loss:.4f}"
        table.add_row(*map(Text, [trial.name, *values, loss, "best" if trial is best else trial.state]))
    # Wider than any table, or rich would cut cells.
    console = Console(width=100_000)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _cell(value: Value) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _require_optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise MedtuneError("search: Optuna is not installed; run: pip install '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _shared(stages: Mapping[str, Any], space: Space) -> str:
    """What names all that decides the validation loss of a run, but the parameters that are searched."""
    stage = stages[STAGE]
    params = flatten(stage["params"][PARAMS_FILE.name])
    inputs = {item["path"]: item["md5"] for item in stage["deps"]}
    return fingerprint({"parameters": {k: v for k, v in params.items() if k not in space}, "inputs": inputs})


def _study(this: _Searched) -> "Study":
    """The study of a search; a new one begins with the run of the commit, if the space has it."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    STUDIES.mkdir(parents=True, exist_ok=True)
    file = STUDIES / f"{this.name}.journal"
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            study_name=this.name,
            direction="minimize",
            load_if_exists=True,
        )
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise MedtuneError(
            f"{file}: not what `medtune search` wrote ({error}); take it away to begin anew"
        ) from None
    if COMMIT not in study.user_attrs:
        _begin(this, study)
    study.pruner = _pruner(this.search.prune_after, study.user_attrs[STEPS])
    return study


def _begin(this: _Searched, study: "Study") -> None:
    """Note the commit that a search begins on, its curve among what trials are compared with."""
    import optuna

    commit = git("rev-parse", "HEAD").strip()
    curve = dict(_curve(git("show", f"{commit}:./{CURVE}")))
    params = _params_of(commit, this.space)
    # Killed after it was added, the search begins once more.
    if not study.get_trials(deepcopy=False):
        # Of values that the space has not, Optuna wants to know nothing.
        with suppress(ValueError):
            study.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions={key: _distribution(values) for key, values in this.space.items()},
                    value=_loss_of(commit),
                    intermediate_values=curve,
                    user_attrs={COMMIT: commit},
                )
            )
    study.set_user_attr(STEPS, max(curve, default=0))
    study.set_user_attr(COMMIT, commit)


def _pruner(after: int | None, steps: int) -> "BasePruner":
    import optuna

    if after is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=after, n_warmup_steps=math.ceil(steps / UNDISTURBED))


def _distribution(values: Range | list[Value]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution(values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    step = None if values.step is None else float(values.step)
    return FloatDistribution(float(values.low), float(values.high), log=values.log, step=step)


def _run(this: _Searched, study: "Study", wanted: int) -> bool:
    """Run trials until there are as many as wanted; whether nothing new was proposed before that."""
    repeats = 0
    while (done := len(_over(study))) < wanted:
        trial = _next(this, study)
        if (same := _same(study, trial)) is not None:
            _repeat(study, trial, same)
            repeats += 1
            if repeats == REPEATS:
                return True
            continue
        repeats = 0
        shown = ", ".join(f"{key}={_cell(value)}" for key, value in trial.params.items())
        _say(f"{_name(this, trial.number)}, {done + 1} of {wanted}: {shown}")
        _try(this, study, trial)
    return False


def _over(study: "Study") -> list["FrozenTrial"]:
    """Trials that are over, without the commit's run and without repetitions."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not {COMMIT, REPEATED} & trial.user_attrs.keys()
    ]


def _next(this: _Searched, study: "Study") -> "Trial":
    """The trial that was killed, or a new one."""
    import optuna

    number = len(study.get_trials(deepcopy=False))
    begun = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
    if begun:
        number = begun[0].number
    # A sampler for each trial: one for all would begin again when a search goes on.
    seed = int.from_bytes(hashlib.sha256(f"{this.search.seed} {number}".encode()).digest()[:4], "big")
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    trial = optuna.trial.Trial(study, begun[0]._trial_id) if begun else study.ask()
    for key, values in this.space.items():
        _suggest(trial, key, values)
    return trial


def _suggest(trial: "Trial", key: str, values: Range | list[Value]) -> None:
    """Have a value proposed; a trial that has one keeps it."""
    if isinstance(values, list):
        trial.suggest_categorical(key, values)
    elif values.whole:
        trial.suggest_int(key, int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    else:
        step = None if values.step is None else float(values.step)
        trial.suggest_float(key, float(values.low), float(values.high), log=values.log, step=step)


def _same(study: "Study", trial: "Trial") -> "FrozenTrial | None":
    """An earlier trial of the same values."""
    others = study.get_trials(deepcopy=False)[: trial.number]
    return next((other for other in others if other.params == trial.params), None)


def _repeat(study: "Study", trial: "Trial", same: "FrozenTrial") -> None:
    trial.set_user_attr(REPEATED, same.number)
    for step, loss in same.intermediate_values.items():
        trial.report(loss, step)
    study.tell(trial, same.value if same.state.name == "COMPLETE" else None, state=same.state)


def _try(this: _Searched, study: "Study", trial: "Trial") -> None:
    """Run the experiment of a trial unless it is there; tell the study what came of it."""
    from optuna.trial import TrialState

    name = _name(this, trial.number)
    revision, stop = _find(this, name, trial.params), None
    if revision is None:
        stop = _train(this, trial, name)
        revision = _find(this, name, trial.params)
    if stop is None and revision is not None:
        stop = _step_to_stop(trial, _curve(git("show", f"{revision}:./{CURVE}")))
    if stop is not None:
        # Also if its training ended before it could be stopped: what is tried next must not depend on that.
        trial.set_user_attr(STOPPED, f"stopped at step {stop}")
        study.tell(trial, state=TrialState.PRUNED)
        _say(f"  stopped at step {stop}: above the median of the others there")
    elif revision is not None:
        loss = _loss_of(revision)
        study.tell(trial, loss)
        _say(f"  validation loss {loss:.4f}")
    else:
        _failed(this, study, trial)


def _failed(this: _Searched, study: "Study", trial: "Trial") -> None:
    """Tell the study of a training that diverged; anything else ends the search."""
    from optuna.trial import TrialState

    log = _log(this, trial.number)
    printed = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    errors = [line.removeprefix("error: ") for line in printed if line.startswith("error: ")]
    if errors and errors[-1].startswith(DIVERGED):
        trial.set_user_attr(STOPPED, "diverged")
        study.tell(trial, state=TrialState.PRUNED)
        _say(f"  {errors[-1].partition(';')[0]}")
        return
    reason = errors[-1] if errors else "no stage says why"
    raise MedtuneError(
        f"{_name(this, trial.number)} did not run to its end: {reason}. All that it printed is in {log}; "
        "mend that, then the same command goes on with it"
    )


def _train(this: _Searched, trial: "Trial", name: str) -> int | None:
    """Run an experiment; the step at which it was stopped, None if it was not."""
    forget_killed(name)
    stop, is_told = None, False
    with (
        _log(this, trial.number).open("wb") as output,
        start_dvc(command_of(name, trial.params, [STAGE]), this.lock, output) as process,
    ):
        try:
            while process.poll() is None:
                time.sleep(POLL)
                folder = _training_folder(name)
                if folder is None or is_told:
                    continue
                if stop is None:
                    stop = _step_to_stop(trial, _growing_curve(folder))
                if stop is not None:
                    is_told = _interrupt(folder)
        except KeyboardInterrupt:
            # DVC was told as well, and is to clean up first.
            process.wait()
            raise
    return stop


def _training_folder(name: str) -> Path | None:
    """Where the experiment of this name trains, once it does."""
    prefix = git("rev-parse", "--show-prefix").strip()
    folders = (folder / prefix for folder in folders_of(name))
    return next((folder for folder in folders if (folder / BEGAN).is_file()), None)


def _growing_curve(folder: Path) -> list[tuple[int, float]]:
    try:
        return _points(read_csv(folder / CURVE))
    except (OSError, KeyError, ValueError):
        # Not there yet, or DVC takes the folder away just now.
        return []


def _curve(text: str) -> list[tuple[int, float]]:
    """Steps and validation losses of a curve's text."""
    rows = (line.split(",") for line in text.splitlines())
    header = next(rows, [])
    return _points([dict(zip(header, row, strict=True)) for row in rows])


def _points(rows: Sequence[Mapping[str, str]]) -> list[tuple[int, float]]:
    points = [(int(row["step"]), float(row["loss"])) for row in rows if row["examples"] == "validation"]
    return [(step, loss) for step, loss in points if math.isfinite(loss)]


def _step_to_stop(trial: "Trial", curve: Sequence[tuple[int, float]]) -> int | None:
    """Report the points of a curve one after another; the first at which the pruner gives the trial up."""
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    last = max(known, default=-1)
    for step, loss in curve:
        if step < last:
            continue
        if step > last:
            trial.report(loss, step)
            _say(f"  step {step}: validation loss {loss:.4f}")
        if trial.should_prune():
            return step
    return None


def _interrupt(folder: Path) -> bool:
    """End the stage that trains in a folder as Ctrl-C would; False if it cannot be told yet."""
    try:
        process = psutil.Process(int((folder / BEGAN).read_text(encoding="utf-8")))
        # The number of a process that has ended may be another's.
        if Path(process.cwd()).resolve() == folder.resolve():
            process.send_signal(signal.SIGINT)
        return True
    except (OSError, ValueError):
        return False
    except psutil.Error:
        return True


def _find(this: _Searched, name: str, params: Mapping[str, Value]) -> str | None:
    """The commit of a trial's experiment; None if there is none. One that is something else is refused."""
    found = commits_named(name)
    for revision in found:
        with suppress(MedtuneError, KeyError, TypeError, AttributeError):
            same = _shared(stages_of(revision), this.space) == this.shared
            if same and _params_of(revision, this.space) == params and _loss_of(revision) is not None:
                return revision
    if found:
        raise MedtuneError(
            f"experiment {name}: not of this search, as params.yaml, data or code were edited when it began, "
            f"or it was made otherwise; run: dvc exp remove {name}"
        )
    return None


def _params_of(revision: str, space: Space) -> dict[str, Value]:
    """The searched parameters of a run, as its `dvc.lock` has them."""
    params = flatten(stages_of(revision)[STAGE]["params"][PARAMS_FILE.name])
    return {key: params[key] for key in space}


def _loss_of(revision: str) -> float:
    """The validation loss of a run, in nats per answer token, from the file that its `dvc.lock` names."""
    text = git("show", f"{revision}:./{METRICS}")
    recorded = {item["path"]: item["md5"] for item in stages_of(revision)[STAGE]["outs"]}
    if recorded.get(METRICS) != hashlib.md5(text.encode(), usedforsecurity=False).hexdigest():
        raise MedtuneError(f"{revision[:7]}: {METRICS} is not what its dvc.lock has")
    return float(json.loads(text)["validation_loss"])


def _found(this: _Searched, study: "Study", exhausted: bool) -> Found:
    commit = study.user_attrs[COMMIT]
    began = Tried(commit[:7], _params_of(commit, this.space), _loss_of(commit), "the commit")
    return Found(this.name, began, [_tried(this, trial) for trial in _over(study)], exhausted)


def _tried(this: _Searched, trial: "FrozenTrial") -> Tried:
    name = _name(this, trial.number)
    if reason := trial.user_attrs.get(STOPPED):
        return Tried(name, trial.params, None, reason)
    revision = _find(this, name, trial.params)
    if revision is None:
        return Tried(name, trial.params, None, "its experiment was removed")
    return Tried(name, trial.params, _loss_of(revision))


def _name(this: _Searched, number: int) -> str:
    return f"{this.name}-{number}"


def _log(this: _Searched, number: int) -> Path:
    return STUDIES / f"{_name(this, number)}.log"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
