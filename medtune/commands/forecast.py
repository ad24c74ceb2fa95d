"""How long each stage will take here, from the last time it ran, where that says it.

It does if the stage ran on such a processor or GPU, with as many threads and processes, and with parameters
that cost the same; what only changes how much there is to do (epochs, examples, questions) is scaled. All
else is not known, and what stands in the way is said. `metrics/timing.json` has the times, `dvc.lock` the
parameters that they were of, `metrics/environment.json` where that was. DVC restores a run from its cache
without its time: whose a time is, git knows, by the commit that brought it.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.outputs import ENVIRONMENT_FILE, TIMING_FILE, read_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml
from medtune.run.launch import Launch
from medtune.run.lock_file import LOCK_FILE, read_lock
from medtune.run.params import ComputeParams
from medtune.run.shipped import SHIPPED

STAGES = SHIPPED[1:]
DATA_FILE, DETAILS_FILE = Path("metrics/data.json"), Path("metrics/training_details.json")
EVALUATION_FILE = Path("metrics/details.json")
COST_NOTHING = {
    "finetune": (
        "seed",
        "lora.alpha",
        "learning_rate",
        "warmup",
        "schedule",
        "weight_decay",
        "max_grad_norm",
        "log_every",
        "keep_checkpoints",
    ),
    "answer": ("seed",),
    "evaluate": ("seed", "partial_f1", "choice_rule", "near_relative", "set_kinds"),
    "model": ("license",),
}
"""Parameters of which a stage takes no longer, by section."""
LOOKED_AT = 100
"""Commits in which it is looked for whose time it is."""
SCALED = {"finetune": ("epochs",), "answer": ("examples_per_kind",)}
"""Those that change how much there is to do, and not how fast it is done."""
LAUNCHED = {"finetune": "finetune", "answer-base": "answer", "answer-tuned": "answer"}


@dataclass(frozen=True)
class Forecast:
    """Seconds that a stage will take, or None; `because` says what that rests on, or why it is not known."""

    stage: str
    seconds: float | None
    because: str


class UnknownError(Exception):
    """The last run does not say how long this one takes; the message says why."""


@dataclass(frozen=True)
class Last:
    """What the last run left: times and parameters by stage, where it ran, and how much there was to do."""

    timing: Mapping[str, Any]
    environment: Mapping[str, Any]
    stages: Mapping[str, Any]

    @classmethod
    def load(cls) -> "Last":
        """From the files of metrics/ and dvc.lock; UnknownError if one is missing."""
        try:
            return cls(read_json(TIMING_FILE), read_json(ENVIRONMENT_FILE), read_lock())
        except (OSError, ValueError, MedtuneError):
            raise UnknownError("no run was timed here yet") from None

    def params(self, stage: str) -> dict[str, Any]:
        """The sections of params.yaml that a stage ran with."""
        try:
            return self.stages[stage]["params"][PARAMS_FILE.name]
        except KeyError:
            raise UnknownError(f"{LOCK_FILE} has no run of it") from None


def forecasts(content: Mapping[str, Any]) -> list[Forecast]:
    """For each stage, with the parameters `content` of a params.yaml, on this machine."""
    found = []
    for stage in STAGES:
        try:
            found.append(_forecast(stage, content, Last.load()))
        except UnknownError as unknown:
            found.append(Forecast(stage, None, str(unknown)))
    return found


def whole_time(found: list[Forecast]) -> float | None:
    """Seconds of all stages together; None if one is not known."""
    known = [one.seconds for one in found if one.seconds is not None]
    return sum(known) if len(known) == len(found) else None


def describe_forecasts(found: list[Forecast], price: float | None = None) -> str:
    """A line for each stage, and their sum if all are known; with the price of an hour what that costs."""
    lines = ["Time, as in the last timed run, here or on a machine with the same instruction sets"]
    lines += [f"{one.stage:<14}{_minutes(one.seconds):>10}  {one.because}".rstrip() for one in found]
    whole = whole_time(found)
    if whole is not None:
        lines.append(f"{'all':<14}{_minutes(whole):>10}")
    if price is not None:
        said = "not known, as long as the time is not" if whole is None else f"{whole / 3600 * price:.2f}"
        lines.append(f"cost at {price:g} an hour: {said}")
    return "\n".join(lines)


def questions_by_kind(content: Mapping[str, Any]) -> dict[str, int] | None:
    """How many test questions of each kind will be asked; None if `prepare` has not made them yet."""
    try:
        if Last.load().params("prepare")["data"] != content["data"]:
            return None
        made = read_json(DATA_FILE)["examples"]["test"]
    except (UnknownError, OSError, ValueError, KeyError):
        return None
    most = content["answer"]["examples_per_kind"]
    return {kind: n if most is None else min(n, most) for kind, n in made.items()}


def _forecast(stage: str, content: Mapping[str, Any], last: Last) -> Forecast:
    if stage not in last.timing:
        raise UnknownError("it was not timed yet")
    _require_like_here(stage, content, last)
    _require_own_time(stage, last)
    sections = last.params(stage)
    for section, before in sections.items():
        _require_same_cost(section, before, content.get(section))
    if stage != "prepare" and last.params("prepare")["data"] != content.get("data"):
        raise UnknownError("data was changed: how much there is to do is known after `dvc repro prepare`")
    factor, scaled = _factor(stage, content, last)
    return Forecast(stage, factor * last.timing[stage]["seconds"], scaled)


def _factor(stage: str, content: Mapping[str, Any], last: Last) -> tuple[float, str]:
    """How many times as much there is to do as in the last run, and why."""
    try:
        if stage == "finetune":
            done = read_json(DETAILS_FILE)
            timed = last.timing[stage]["tokens_per_second"] * last.timing[stage]["seconds"]
            # DVC restores outputs that it has from the run cache, and no time with them. A time is in tenths.
            rounding = 0.05 * last.timing[stage]["tokens_per_second"]
            if abs(timed - done["tokens_seen"]) > 0.02 * done["tokens_seen"] + rounding:
                raise UnknownError("metrics/timing.json is of a run with another number of tokens")
            examples = sum(read_json(DATA_FILE)["examples"]["train"].values())
            before, now = done["examples"] * done["epochs"], examples * content["finetune"]["epochs"]
            return now / before, _told(before, now, "examples seen")
        if stage == "answer-shots" and not content["answer"]["shots"]:
            return 1.0, "asks nothing, as answer.shots is 0"
        if stage.startswith("answer-"):
            before = read_json(EVALUATION_FILE)["all"]["tuned"]["n"]
            now = sum((questions_by_kind(content) or {}).values())
            return now / before, _told(before, now, "questions")
    except (OSError, ValueError, KeyError):
        raise UnknownError("how much the last run had to do is not there") from None
    return 1.0, ""


def _told(before: float, now: float, what: str) -> str:
    return f"{now:,.0f} {what}" + ("" if abs(now - before) < 0.5 else f", scaled from {before:,.0f}")


def _require_like_here(stage: str, content: Mapping[str, Any], last: Last) -> None:
    """Refuse to conclude from another processor, GPU, or number of threads or processes."""
    # The stages that compute no tensors note no place; they ran where the training did.
    there = last.environment.get(stage) or last.environment.get("finetune")
    if there is None:
        raise UnknownError("where it ran was not noted")
    for name, here in _here(content).items():
        if there.get(name) != here:
            other = _differ(there.get(name), here)
            raise UnknownError(f"the last run was on another machine: its {name} {other}")
    if stage in LAUNCHED:
        launch = Launch.load(content[LAUNCHED[stage]]["launch"], f"{LAUNCHED[stage]}.launch")
        if there.get("processes") != launch.processes:
            raise UnknownError(f"the last run had {there.get('processes')} processes, not {launch.processes}")


def _differ(there: Any, here: Any) -> str:
    if isinstance(there, list) and isinstance(here, list):
        names = sorted(set(there) ^ set(here))
        return f"differ in {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
    return f"was {there}, here it is {here}"


def _here(content: Mapping[str, Any]) -> dict[str, Any]:
    # Imported here: torch takes seconds to load.
    import platform

    import torch

    from medtune.run.device import choose_device, cores_here, processor_features

    compute = ComputeParams.of(content)
    device = choose_device(compute)
    return {
        "machine": platform.machine(),
        "processor_features": processor_features(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": cores_here() if compute.threads == "auto" else compute.threads,
    }


def _require_own_time(stage: str, last: Last) -> None:
    """Refuse a time that git has of a run with other parameters or questions than the one that is here."""
    time, timed = last.timing[stage], None
    for commit in _git("log", f"--max-count={LOOKED_AT}", "--format=%H", "--", str(TIMING_FILE)).split():
        if _noted(commit, TIMING_FILE).get(stage) != time:
            break
        timed = commit
    if timed is None:
        if _noted("HEAD", LOCK_FILE).get("stages", {}).get(stage) == _noted(None, LOCK_FILE)["stages"][stage]:
            raise UnknownError(
                f"{TIMING_FILE} has another time than the commit, whose run is here: commit it if it is of it"
            )
        return
    try:
        before = _noted(timed, LOCK_FILE)["stages"][stage]
        sections = before["params"][PARAMS_FILE.name]
    except KeyError:
        return
    for section, here in last.params(stage).items():
        for key, old, new in _differing("", sections.get(section), here):
            if not _is_free(key, COST_NOTHING.get(section, ())):
                raise UnknownError(
                    f"{TIMING_FILE} is of the run of {timed[:9]}: {section}.{key} {_compared(old, new)}"
                )
    if _questions(before) != _questions(last.stages[stage]):
        raise UnknownError(f"{TIMING_FILE} is of the run of {timed[:9]}, which had other questions")


def _questions(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {dep["path"]: dep["md5"] for dep in stage.get("deps", ()) if dep["path"].startswith("data/")}


def _noted(commit: str | None, path: Path) -> dict[str, Any]:
    """What a file said in a commit (None: says here); nothing if it was not there or cannot be read."""
    text = path.read_text(encoding="utf-8") if commit is None else _git("show", f"{commit}:./{path}")
    try:
        found = json.loads(text) if path.suffix == ".json" else parse_yaml(text, path)
    except (ValueError, MedtuneError):
        return {}
    return found if isinstance(found, dict) else {}


def _git(*arguments: str) -> str:
    """What git says; nothing where it refuses, as in a folder without it."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True).stdout


def _require_same_cost(section: str, before: Any, now: Any) -> None:
    """Refuse to conclude from parameters that cost otherwise."""
    free = (*COST_NOTHING.get(section, ()), *SCALED.get(section, ()))
    for key, old, new in _differing("", before, now):
        if not _is_free(key, free):
            raise UnknownError(f"{section}.{key} {_compared(old, new)}")


def _is_free(key: str, free: Sequence[str]) -> bool:
    return key in free or any(key.startswith(f"{name}.") for name in free)


def _differing(key: str, before: Any, now: Any) -> list[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return [] if before == now else [(key, before, now)]
    names = list(dict.fromkeys([*before, *now]))
    return [
        found
        for name in names
        for found in _differing(f"{key}.{name}" if key else str(name), before.get(name), now.get(name))
    ]


def _compared(old: Any, new: Any) -> str:
    if all(isinstance(value, (bool, int, float, str)) and len(str(value)) < 30 for value in (old, new)):
        return f"is {new}, in the last run it was {old}"
    return "is not that of the last run"


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
