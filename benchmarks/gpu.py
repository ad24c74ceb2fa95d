"""What one GPU gives: the same bytes twice, memory as planned, speed beside a plain Trainer and TRL.

    python -m benchmarks.gpu [--shape llama-3.2-1b] [--adapters lora qlora] [--sides plain trl]

A Llama of a known shape with random weights is trained on random tokens of 128 to 512 a row, of which the
first 64 are the same in all: nothing is fetched, and no data is needed. It runs on a CPU too, with `--shape
tiny`. Each side is a process of its own and trains the same batches from the same adapter; QLoRA needs
bitsandbytes and TRL is left out where it is not installed. medtune runs once beside each of the others, and
so twice: both runs have to end with an adapter of the same bytes. The last line is JSON.
"""

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks import side
from benchmarks.gpu_base import SHAPES, save_base
from benchmarks.rounds import Spread, in_turns, ratios
from medtune.answer.params import AnswerParams
from medtune.commands.plan import Settings, parts_at_most
from medtune.core.hashing import files_sha256
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.model.memory import GIB, Device
from medtune.model.params import ModelParams
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams

NAMES = {"medtune": "medtune", "plain": "plain Trainer", "trl": "TRL's SFTTrainer"}
QUANTIZATION = {"lora": None, "qlora": "nf4"}
SHOWN = 8
"""Steps whose losses and gradients are shown side by side."""

Turns = Mapping[str, Sequence[Mapping[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description="One GPU: identity, memory, speed.")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--adapters", nargs="+", choices=QUANTIZATION, default=available_adapters())
    parser.add_argument("--sides", nargs="*", choices=["plain", "trl"], default=available_sides())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_base(arguments.shape, folder / "base")
        for adapter in arguments.adapters:
            content = write_params(folder, arguments.shape, QUANTIZATION[adapter])
            groups = run(folder, arguments.sides, arguments.rounds, arguments.steps)
            results[adapter] = result(groups, at_most(content))
            print_result(adapter, groups, results[adapter])
        write_params(folder, arguments.shape, None)
        results["answers"] = answers(folder, min(arguments.rounds, 3))
    print(json.dumps({"shape": arguments.shape, "device": device_name(), **results}))


def available_adapters() -> list[str]:
    """QLoRA only where there is what quantises."""
    return ["lora", *(["qlora"] if importlib.util.find_spec("bitsandbytes") else [])]


def available_sides() -> list[str]:
    """TRL only where it is installed."""
    return ["plain", *(["trl"] if importlib.util.find_spec("trl") else [])]


def write_params(folder: Path, shape: str, quantization: str | None) -> dict[str, Any]:
    """The params.yaml of this repository for the base in `folder`, written there; what it says."""
    content, base = read_yaml(PARAMS_FILE), folder / "base"
    content["model"] = {
        "source": str(base),
        "license": "none",
        "sha256": files_sha256(base.iterdir(), base),
    }
    content["compute"] |= {"quantization": quantization, **SHAPES[shape].compute}
    content["finetune"] |= {"launch": "single", "too_long": "error", **SHAPES[shape].finetune}
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(content), encoding="utf-8")
    return content


def run(folder: Path, others: Sequence[str], rounds: int, steps: int) -> list[Turns]:
    """What sides report: medtune beside each of the others, twice in any case."""
    groups = [["medtune", name] for name in others] or [["medtune"]]
    if len(groups) == 1:
        groups.append(["medtune"])
    groups[0].insert(0, "matmul_peak")
    found: list[Turns] = []
    for group in groups:
        with side.running("benchmarks.gpu_sides", group, str(folder), str((1 + rounds) * steps)) as sides:
            turns = {name: lambda name=name: sides[name].turn(str(steps)) for name in group}
            found.append(in_turns(turns, 1 + rounds))
    return found


def answers(folder: Path, rounds: int) -> dict[str, Any]:
    """How fast the base answers beside batches of `generate`, in the dtype that it is trained in."""
    names = ["answers", "generate"]
    with side.running("benchmarks.gpu_sides", names, str(folder), "8") as sides:
        found = in_turns({name: one.turn for name, one in sides.items()}, 1 + rounds)
    ratio = ratios(speeds(found["answers"]), speeds(found["generate"]))
    rows = [
        ["medtune", Spread.of(speeds(found["answers"])).shown(0), "1"],
        ["generate, 8 at a time", Spread.of(speeds(found["generate"])).shown(0), ratio.shown(1)],
    ]
    side.print_table(["answers", "tokens/s", "times slower"], rows)
    return {"vs_generate": ratio.median, "spread": {"vs_generate": ratio.as_list()}}


def at_most(content: Mapping[str, Any]) -> float:
    """GiB that `medtune plan` calls the most that a training needs: on a GPU of tensors, on a CPU of all."""
    settings = Settings(
        dict(content),
        ModelParams.of(content),
        ComputeParams.of(content),
        FinetuneParams.of(content),
        AnswerParams.of(content),
    )
    device = Device.find(settings.compute)
    parts = parts_at_most(settings, "finetune", device.kind, device)
    # Of CUDA's own context the peak of tensors has nothing.
    return sum(size for name, size in parts.items() if device.kind == "cpu" or name != "libraries") / GIB


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def result(groups: Sequence[Turns], planned: float) -> dict[str, Any]:
    """Medians, with quartiles under `spread`; losses and gradients of every step."""
    ours = groups[0]["medtune"]
    share = ratios(
        [turn["flops"] / turn["seconds"] for turn in ours[1:]],
        [turn["flops_per_second"] for turn in groups[0]["matmul_peak"][1:]],
    )
    spreads = {"matmul_share": share, "tokens_per_second": Spread.of(speeds(ours))}
    for group in groups:
        for name in set(group) & {"plain", "trl"}:
            spreads[f"vs_{name}"] = ratios(speeds(group["medtune"]), speeds(group[name]))
    sides = by_name(groups)
    return {
        **{name: spread.median for name, spread in spreads.items()},
        "spread": {name: spread.as_list() for name, spread in spreads.items()},
        "identical_adapters": len({group["medtune"][-1]["adapter"] for group in groups}) == 1,
        "plan_at_most_gib": planned,
        "peak_gib": {name: peak(turns) for name, turns in sides.items()},
        "plan_holds": peak(ours) <= planned,
        "matmul_tflops": max(turn["flops_per_second"] for turn in groups[0]["matmul_peak"]) / 1e12,
        "losses": {name: of_all(turns, "losses") for name, turns in sides.items()},
        "gradient_norms": {name: of_all(turns, "gradient_norms") for name, turns in sides.items()},
    }


def by_name(groups: Sequence[Turns]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The turns of each side, medtune's of the first group, in the order of a table."""
    return {name: group[name] for name in NAMES for group in reversed(groups) if name in group} | {
        "medtune": groups[0]["medtune"]
    }


def print_result(adapter: str, groups: Sequence[Turns], found: Mapping[str, Any]) -> None:
    """The same for people."""
    sides = by_name(groups)
    side.print_table(
        [adapter, "tokens/s", "times slower", "peak GiB"],
        [
            [
                NAMES[name],
                Spread.of(speeds(sides[name])).shown(0),
                f"{found.get(f'vs_{name}', 1):.2f}",
                f"{found['peak_gib'][name]:.2f}",
            ]
            for name in sides
        ],
    )
    side.print_table(
        ["step", *(f"{label} of {name}" for name in sides for label in ("loss", "gradient"))],
        [
            [
                str(step + 1),
                *(
                    f"{found[what][name][step]:.4f}"
                    for name in sides
                    for what in ("losses", "gradient_norms")
                ),
            ]
            for step in range(min(SHOWN, len(found["losses"]["medtune"])))
        ],
    )
    print(f"two runs: {'the same bytes' if found['identical_adapters'] else 'OTHER BYTES'}")
    print(
        f"memory: {found['peak_gib']['medtune']:.2f} GiB, planned at most {found['plan_at_most_gib']:.2f}: "
        f"{'the plan holds' if found['plan_holds'] else 'MORE THAN PLANNED'}"
    )
    print(f"share of {found['matmul_tflops']:.2f} TFLOP/s of products: {found['matmul_share']:.1%}\n")


def speeds(turns: Sequence[Mapping[str, Any]]) -> list[float]:
    """Real tokens a second of each turn that counts; the first one warms up."""
    return [turn["tokens"] / turn["seconds"] for turn in turns[1:]]


def peak(turns: Sequence[Mapping[str, Any]]) -> float:
    """GiB of tensors on the GPU, of the process on a CPU."""
    return max(float(turn.get("device_gib", turn["peak_gib"])) for turn in turns)


def of_all(turns: Sequence[Mapping[str, Any]], what: str) -> list[float]:
    """A figure of every step, the first turn's too."""
    return list(chain.from_iterable(turn[what] for turn in turns))


if __name__ == "__main__":
    main()
