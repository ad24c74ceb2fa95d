"""How fast the stage trains beside what a user would pick instead, and whether the losses are the same.

    python -m benchmarks.train [--quick]

Every side has the same model, data and hyper-parameters (params.yaml) and runs in a process of its own, one
after the other. Speeds are real, unpadded tokens a second, without the first step, which warms up. The last
line is JSON.
"""

import argparse
import json
from functools import partial
from typing import Any

from benchmarks import side

STEPS = {"medtune": 50, "medtune_float32": 50, "plain_float32": 50, "trl": 8, "trl_best": 16, "notebook": 8}
QUICK_STEPS = {"medtune": 8, "medtune_float32": 3, "plain_float32": 3, "trl": 2, "trl_best": 3, "notebook": 2}
FLOP_PER_PARAMETER_AND_TOKEN = 4
"""Two in the forward pass, two for the gradient of a layer's input; frozen weights have none."""


def main(quick: bool) -> None:
    measure = partial(side.measure, "benchmarks.train_sides")
    peak = measure("matmul_peak", 0)["flops"]
    sides = {name: measure(name, steps) for name, steps in (QUICK_STEPS if quick else STEPS).items()}
    peak = max(peak, measure("matmul_peak", 0)["flops"])
    steps = 4 if quick else 16
    shared, unshared = measure("long_prompt", steps), measure("long_prompt_unshared", steps)

    ours = speed(sides["medtune"])
    names = {
        "medtune": "medtune",
        "medtune_float32": "medtune, float32",
        "plain_float32": "its batches the plain way, float32",
        "trl": "TRL, defaults (bf16)",
        "trl_best": "TRL, best options",
        "notebook": "notebook: Trainer, float32",
    }
    side.print_table(
        ["training", "tokens/s", "ratio", "peak GiB"],
        [row(label, sides[name], ours) for name, label in names.items()],
    )
    side.print_table(
        ["system prompt of 100 tokens", "tokens/s", "ratio", "peak GiB"],
        [row("shared prefix", shared, speed(shared)), row("not shared", unshared, speed(shared))],
    )
    curves = [sides[name]["losses"] for name in ("plain_float32", "medtune_float32", "medtune")]
    stride = 1 if quick else 5
    side.print_table(
        ["loss at step", "plain, float32", "medtune, float32", "medtune"],
        [
            [str(step), *(f"{loss:.5f}" for loss in losses)]
            for step, losses in enumerate(zip(*curves, strict=False), start=1)
            if step % stride == 0
        ],
    )
    figures = sides["medtune"]
    flop = FLOP_PER_PARAMETER_AND_TOKEN * figures["parameters"]
    share = flop * ours / peak
    computed = share * figures["computed_tokens"] / sum(figures["tokens"])
    print(f"bf16 matmul peak {peak / 1e9:.0f} GFLOP/s; of it {share:.0%} at the tokens trained on,")
    print(f"{computed:.0%} at the tokens computed (a shared prefix once, padding too)\n")
    gaps = [abs(a - b) for a, b in zip(curves[0], curves[1], strict=True)]
    print(
        json.dumps(
            {
                "vs_trl_default": ours / speed(sides["trl"]),
                "vs_trl_best": ours / speed(sides["trl_best"]),
                "vs_notebook": ours / speed(sides["notebook"]),
                "matmul_share": share,
                "matmul_share_computed": computed,
                "shared_prefix": speed(shared) / speed(unshared),
                "max_loss_gap": max(gaps),
                "max_loss_gap_bf16": max(abs(a - b) for a, b in zip(curves[0], curves[2], strict=False)),
                "peak_gib": {name: measured["peak_gib"] for name, measured in sides.items()},
            }
        )
    )


def speed(measured: dict[str, Any]) -> float:
    """Real tokens a second, the first step left out."""
    return sum(measured["tokens"][1:]) / sum(measured["seconds"][1:])


def row(label: str, measured: dict[str, Any], ours: float) -> list[str]:
    """A line of the table; the ratio is how many times faster the first side is."""
    tokens = speed(measured)
    return [label, f"{tokens:.0f}", f"{ours / tokens:.2f}", f"{measured['peak_gib']:.1f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Training, side by side.")
    parser.add_argument("--quick", action="store_true", help="fewer steps: under five minutes")
    main(parser.parse_args().quick)
