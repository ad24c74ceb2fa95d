"""`medtune plan`: how much memory each stage needs, how long it takes, and what the test then can show.

The sizes of the model give weights, adapter and cache to the byte, and an upper estimate of the rest for the
longest examples that are allowed (medtune/model/memory.py; docs/memory.md explains each row). Where the
device, the base model and data/prepared are here, the largest pass that these make is tried (dry_run.py).
Time is that of the last run where it fits (forecast.py); what can be shown is arithmetic (power.py).
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medtune.answer.params import AnswerParams
from medtune.commands.forecast import (
    Forecast,
    describe_forecasts,
    forecasts,
    questions_by_kind,
    whole_time,
)
from medtune.commands.power import describe_power, power_as_json
from medtune.commands.profiles import PROFILES, merged_params
from medtune.core.errors import MedtuneError
from medtune.core.outputs import TIMING_FILE, read_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.model.files import is_here
from medtune.model.memory import (
    GIB,
    Device,
    answering_parts,
    prompt_pass_bytes,
    training_parts,
    training_pass_bytes,
)
from medtune.model.params import ModelParams
from medtune.model.shape import find_shape
from medtune.run.launch import Launch
from medtune.run.params import MEMORY_KNOBS, ComputeParams
from medtune.train.params import FinetuneParams

LIBRARIES = {"cpu": 0.75 * GIB, "cuda": 0.6 * GIB}
"""Python with torch, transformers and the Trainer, measured; a CUDA context with cuBLAS's workspaces, not."""
FREED = 0.15
"""What an allocator keeps of the blocks that a pass has freed, as a share of them: measured with glibc's."""
RECORD_FILE = Path("models/record.json")
PREPARED = (Path("data/prepared/train.jsonl"), Path("data/prepared/test.jsonl"))
PARTS = ("base weights", "adapter", "cache", "pass", "libraries")
TIMED = {"finetune": ("finetune",), "answer": ("answer-base", "answer-tuned", "answer-shots")}
"""The stages by what is planned for them."""


@dataclass(frozen=True)
class Settings:
    """The sections of a params.yaml that decide about memory, and the whole content that they are from."""

    content: dict[str, Any]
    model: ModelParams
    compute: ComputeParams
    finetune: FinetuneParams
    answer: AnswerParams

    @classmethod
    def load(cls, profile: str | None = None) -> "Settings":
        """params.yaml, with a profile merged into it if one is named; nothing is written."""
        file = PROFILES / f"{profile}.yaml" if profile else PARAMS_FILE
        content = merged_params(profile) if profile else read_yaml(PARAMS_FILE)
        return cls(
            content,
            ModelParams.of(content, file),
            ComputeParams.of(content, file),
            FinetuneParams.of(content, file),
            AnswerParams.of(content, file),
        )

    @property
    def stages(self) -> list[str]:
        """What is planned: a quantised base may be asked without quantisation, too."""
        drift = self.compute.quantization is not None and self.answer.unquantized
        return ["finetune", "answer", *(["unquantized"] if drift else [])]


@dataclass(frozen=True)
class Need:
    """What one process needs at its peak, in bytes: by part at most, as tried here, as measured in a run."""

    stage: str
    parts: dict[str, float]
    tried: int | None = None
    ran_out: bool = False
    measured: float | None = None

    @property
    def at_most(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())

    @property
    def total(self) -> float:
        """As tried; if it was not, no more than this."""
        return self.at_most if self.tried is None else self.tried

    def verdict(self, device: Device) -> str:
        """Whether it fits; if not, what to change."""
        free = f"the {device.free / GIB:.2f} GiB that are free"
        if self.ran_out:
            return f"{self.stage} does not fit into {free}; {MEMORY_KNOBS[self.stage]}"
        if self.total > device.total:
            over = (self.total - device.total) / GIB
            return f"{self.stage} does not fit: {over:.2f} GiB too much; {MEMORY_KNOBS[self.stage]}"
        return (
            f"{self.stage} fits" if self.total <= device.free else f"{self.stage} fits, but not into {free}"
        )


@dataclass(frozen=True)
class Plan:
    """The needs of all stages, and the device they are for if it is here."""

    settings: Settings
    needs: list[Need]
    device: Device | None
    times: list[Forecast] = field(default_factory=list)

    def describe(self, price: float | None = None) -> str:
        """A table, and a verdict for each stage; `price` is that of an hour."""
        rows = {part: [need.parts.get(part) for need in self.needs] for part in PARTS}
        rows["at most"] = [need.at_most for need in self.needs]
        rows["tried"] = [need.tried for need in self.needs]
        rows["measured"] = [need.measured for need in self.needs]
        length = self.settings.finetune.max_length
        lines = [
            f"{self.settings.model.source}; at most, for examples of {length} tokens (finetune.max_length)"
            + ("; tried with those of data/prepared" if any(rows["tried"]) else ""),
            "",
        ]
        lines.append(_row("GiB", [need.stage for need in self.needs]))
        for name, sizes in rows.items():
            if any(sizes):
                lines.append(_row(name, [f"{size / GIB:.2f}" if size else "" for size in sizes]))
        if self.device:
            total, free = self.device.total / GIB, self.device.free / GIB
            lines += ["", f"{self.device.name}: {total:.2f} GiB, {free:.2f} free"]
            lines += [need.verdict(self.device) for need in self.needs]
        if self.times:
            lines += ["", describe_forecasts(self.times, price)]
            lines += ["", describe_power(questions_by_kind(self.settings.content))]
        return "\n".join(lines)

    def as_json(self) -> str:
        """The same figures for programs."""
        stages = {
            need.stage: {
                "gib": {part: round(size / GIB, 3) for part, size in need.parts.items()},
                "at_most_gib": round(need.at_most / GIB, 3),
                "tried_gib": need.tried and round(need.tried / GIB, 3),
                "measured_gib": need.measured and round(need.measured / GIB, 3),
                "fits": (not need.ran_out and need.total <= self.device.total) if self.device else None,
            }
            for need in self.needs
        }
        device = asdict(self.device) if self.device else None
        content: dict[str, Any] = {"source": self.settings.model.source, "stages": stages, "device": device}
        if self.times:
            content["time"] = {
                time.stage: {"seconds": time.seconds, "because": time.because} for time in self.times
            }
            content["seconds"] = whole_time(self.times)
            content["shown"] = power_as_json(questions_by_kind(self.settings.content))
        return json.dumps(content, indent=2)


def make_plan(profile: str | None = None, *, kind: str | None = None, worst: bool = False) -> Plan:
    """A plan for params.yaml, or with a profile merged into it.

    Args:
        profile: of profiles/NAME.yaml.
        kind: plan for such a device (cpu, cuda) elsewhere; by default for the one here, where it is tried.
        worst: for the longest examples that are allowed, whatever those of data/prepared are.
    """
    settings = Settings.load(profile)
    if kind is not None:
        if kind == "cpu" and settings.compute.device == "cuda":
            raise MedtuneError("compute.device is 'cuda'; accepted with it: --device cuda")
        needs = [Need(stage, parts_at_most(settings, stage, kind)) for stage in settings.stages]
        return Plan(settings, needs, device=None)
    device = Device.find(settings.compute)
    measured = measured_peaks(settings.model) if profile is None else {}
    can_try, needs = not worst and is_here(settings.model) and all(map(Path.is_file, PREPARED)), []
    for stage in settings.stages:
        parts = parts_at_most(settings, stage, device.kind, device)
        need = Need(stage, parts, measured=measured.get(stage))
        # One process alone cannot try how many share out the weights.
        if can_try and (stage != "finetune" or not _launch(settings).shares_weights):
            peak = dry_run(settings, stage)
            need = replace(need, tried=peak, ran_out=peak is None)
        needs.append(need)
    return Plan(settings, needs, device, forecasts(settings.content))


def parts_at_most(
    settings: Settings, stage: str, kind: str, device: Device | None = None
) -> dict[str, float]:
    """Bytes that one process of a stage needs on a kind of device (cpu, cuda) for the longest examples.

    `precision: auto` counts as bfloat16. A `device` says whether it has flash attention; without one,
    attention counts with all its scores.
    """
    shape, finetune, answer = find_shape(settings.model), settings.finetune, settings.answer
    quantization, length = settings.compute.quantization, finetune.max_length
    dtype = "bfloat16" if finetune.precision == "auto" else finetune.precision
    if stage == "finetune":
        launch = _launch(settings)
        rows = finetune.batch_size // launch.processes
        if not launch.shares_weights:
            rows = max(1, min(rows, finetune.tokens_per_pass // length))
        held = training_parts(shape, dtype, quantization, finetune.lora)
        parts = {
            name: size / (launch.processes if launch.shares_weights else 1) for name, size in held.items()
        }
        checkpointing = finetune.gradient_checkpointing
        flash = device is not None and device.has_flash(shape, settings.compute, dtype)
        kept = training_pass_bytes(shape, dtype, rows, length, checkpointing=checkpointing, flash=flash)
        parts["pass"] = (1 + FREED) * kept
    else:
        if stage == "unquantized":
            dtype, quantization = "bfloat16", None
        else:
            dtype = answer.precision
        # The adapter, the only one that is asked on an unquantised base, gets no shots.
        prompt = length * (1 if stage == "unquantized" else 1 + answer.shots)
        rows = max(1, min(answer.batch_size, answer.tokens_per_batch // (prompt + answer.max_new_tokens)))
        positions = rows * (prompt + answer.max_new_tokens)
        parts = answering_parts(shape, dtype, quantization, finetune.lora, positions)
        parts["pass"] = prompt_pass_bytes(shape, dtype, rows, prompt)
    return parts | {"libraries": LIBRARIES[kind]}


def dry_run(settings: Settings, stage: str) -> int | None:
    """The peak of a stage's largest pass in bytes, as dry_run.py makes it; None if memory ran out."""
    command = [sys.executable, "-m", "medtune.commands.dry_run", stage]
    content = json.dumps(settings.content)
    ended = subprocess.run(command, input=content, capture_output=True, text=True)
    if ended.returncode < 0:
        return None
    if ended.returncode:
        raise MedtuneError(ended.stderr.strip().rpartition("error: ")[2] or f"the dry run of {stage} failed")
    return json.loads(ended.stdout.splitlines()[-1])["peak"]


def measured_peaks(model: ModelParams) -> dict[str, float]:
    """Bytes that the last run of each stage needed, from metrics/timing.json; none if of another model."""
    try:
        timing, record = read_json(TIMING_FILE), read_json(RECORD_FILE)
    except (FileNotFoundError, ValueError):
        return {}
    if record["parameters"]["model"]["source"] != model.source:
        return {}
    peaks = {
        name: [timing[stage].get("peak_memory_gib", 0) for stage in stages if stage in timing]
        for name, stages in TIMED.items()
    }
    return {name: max(found) * GIB for name, found in peaks.items() if any(found)}


def _launch(settings: Settings) -> Launch:
    return Launch.load(settings.finetune.launch, "finetune.launch")


def _row(name: str, cells: list[str]) -> str:
    return (f"{name:<14}" + "".join(f"{cell:>13}" for cell in cells)).rstrip()
