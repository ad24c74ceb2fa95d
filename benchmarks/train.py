"""How fast the stage trains beside what a user would pick instead, and whether the losses are the same.

    python -m benchmarks.train [--long] [--rounds 4] [--quick] [--against trl notebook] [--cpu-time]

Every side has the same model, data and hyper-parameters (params.yaml) and runs in a process of its own. The
sides of a group take turns of a few steps, and are compared turn by turn; the first turn warms up and does
not count. Speeds are real, unpadded tokens a second. `--long` takes texts of 300 to 700 tokens
(benchmarks/texts.py). The last line is JSON.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import side
from benchmarks.rounds import Spread, in_turns, ratios
from benchmarks.texts import LONG, SHORT, require_prepared
from medtune.core.errors import run

Turns = Mapping[str, Sequence[Mapping[str, Any]]]
"""What each side reported, turn by turn, the one that warms up too."""

SHORT_GROUPS = (
    {"matmul_peak": 0, "medtune": 3, "trl": 1, "notebook": 1},
    {"medtune": 3, "trl_best": 2},
    {"medtune_float32": 1, "plain_float32": 1},
    {"long_prompt": 2, "long_prompt_unshared": 1},
)
LONG_GROUPS = (
    {"matmul_peak": 0, "medtune": 2, "trl": 1, "notebook": 1},
    {"medtune": 2, "trl_best": 1},
)
"""Steps of a turn. A group is in memory at once, so TRL's best options, which take most, stand alone."""
NAMES = {
    "medtune": "medtune",
    "medtune_float32": "medtune, float32",
    "plain_float32": "its batches the plain way, float32",
    "trl": "TRL, defaults (bf16)",
    "trl_best": "TRL, best options",
    "notebook": "notebook: Trainer, float32",
    "long_prompt": "system prompt of 100 tokens, shared",
    "long_prompt_unshared": "the same, not shared",
}
COMPARED = {
    "vs_trl_default": ("medtune", "trl"),
    "vs_notebook": ("medtune", "notebook"),
    "vs_trl_best": ("medtune", "trl_best"),
    "vs_plain_float32": ("medtune_float32", "plain_float32"),
    "shared_prefix": ("long_prompt", "long_prompt_unshared"),
}

OTHERS = [theirs for _, theirs in COMPARED.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Training, side by side.")
    parser.add_argument("--long", action="store_true", help="texts of 300 to 700 tokens")
    parser.add_argument("--against", nargs="+", choices=OTHERS, default=OTHERS, help="these sides only")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side that count")
    parser.add_argument("--cpu-time", action="store_true", help="by the processor, on one thread")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    arguments = parser.parse_args()
    require_prepared()
    texts, rounds = LONG if arguments.long else SHORT, 2 if arguments.quick else arguments.rounds
    groups = chosen(LONG_GROUPS if arguments.long else SHORT_GROUPS, arguments.against)
    found = [take_turns(group, texts, rounds, cpu_time=arguments.cpu_time) for group in groups]
    compared = {
        name: ratios(speeds(group[ours]), speeds(group[theirs]))
        for name, (ours, theirs) in COMPARED.items()
        for group in found
        if ours in group and theirs in group
    }
    slower = {COMPARED[name][1]: spread.shown() for name, spread in compared.items()}
    side.print_table(
        ["training", "tokens/s", "times slower", "peak GiB"],
        [row(name, group[name], slower) for group in found for name in group if name in NAMES],
    )
    share = shares(found[0])
    print(
        f"Products reach {peaks(found[0]).shown(0)} GFLOP/s, and training {share.shown()} of that, counting\n"
        f"what has to be computed (benchmarks/flops.py). {padding(found[0]):.0%} of the tokens are padding.\n"
    )
    gaps = {name: loss_gap(group) for group in found for name in group if name == "plain_float32"}
    print(json.dumps(summary(found, compared, share) | {"max_loss_gap": gaps.get("plain_float32")}))


def chosen(groups: Sequence[Mapping[str, int]], against: Sequence[str]) -> list[dict[str, int]]:
    """The groups without the sides that nobody asked for; the first has the peak, and stays."""
    left = [
        {name: n for name, n in group.items() if name not in OTHERS or name in against} for group in groups
    ]
    return [group for number, group in enumerate(left) if number == 0 or set(group) & set(OTHERS)]


def take_turns(group: Mapping[str, int], texts: str, rounds: int, *, cpu_time: bool = False) -> Turns:
    """What the sides of a group report, each with its steps a turn."""
    with side.running("benchmarks.train_sides", list(group), texts, cpu_time=cpu_time) as sides:
        turns = {name: lambda name=name: sides[name].turn(str(group[name])) for name in group}
        return in_turns(turns, 1 + rounds)


def speeds(turns: Sequence[Mapping[str, Any]]) -> list[float]:
    """Real tokens a second of each turn that counts."""
    return [turn["tokens"] / turn["seconds"] for turn in turns[1:]]


def peaks(group: Turns) -> Spread:
    """GFLOP a second of products."""
    return Spread.of([turn["flops_per_second"] / 1e9 for turn in group["matmul_peak"][1:]])


def shares(group: Turns) -> Spread:
    """Of what products reached in the same round, the share that training reached."""
    reached = [turn["flops"] / turn["seconds"] for turn in group["medtune"][1:]]
    return ratios(reached, [turn["flops_per_second"] for turn in group["matmul_peak"][1:]])


def padding(group: Turns) -> float:
    """The share of padding in all that ran through the model."""
    turns = group["medtune"][1:]
    wasted = sum(turn["padding"] for turn in turns)
    return wasted / (wasted + sum(turn["computed_tokens"] for turn in turns))


def loss_gap(group: Turns) -> float:
    """The largest difference between the losses of the same step, the plain way and ours."""
    ours, plain = (
        [loss for turn in group[name] for loss in turn["losses"]]
        for name in ("medtune_float32", "plain_float32")
    )
    return max(abs(one - other) for one, other in zip(ours, plain, strict=True))


def row(name: str, turns: Sequence[Mapping[str, Any]], slower: Mapping[str, str]) -> list[str]:
    """A line of the table; the ratio is to the first side of the group."""
    return [
        NAMES[name],
        Spread.of(speeds(turns)).shown(0),
        slower.get(name, "1"),
        f"{turns[-1]['peak_gib']:.1f}",
    ]


def summary(found: Sequence[Turns], compared: Mapping[str, Spread], share: Spread) -> dict[str, Any]:
    """Medians, and under `spread` the quartiles of the same figures."""
    sides = {name: turns for group in reversed(found) for name, turns in group.items() if name in NAMES}
    spreads = {**compared, "matmul_share": share, "matmul_gflops": peaks(found[0])}
    return {
        **{name: spread.median for name, spread in spreads.items()},
        "spread": {name: spread.as_list() for name, spread in spreads.items()},
        "padding": padding(found[0]),
        "tokens_per_second": {name: Spread.of(speeds(turns)).median for name, turns in sides.items()},
        "peak_gib": {name: turns[-1]["peak_gib"] for name, turns in sides.items()},
        "rounds": len(found[0]["medtune"]) - 1,
    }


if __name__ == "__main__":
    run(main)
