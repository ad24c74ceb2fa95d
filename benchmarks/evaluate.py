"""How fast questions are answered beside the plain ways, and whether the answers are the same.

    python -m benchmarks.evaluate [--long] [--rounds 3] [--questions 128] [--quick] [--cpu-time]

The untuned base model in float32 gets questions of data/prepared/test.jsonl, with `--long` some of 300 to
700 tokens (benchmarks/texts.py). Sides run in processes of their own and take turns: medtune answers all
questions, one at a time a few of them, others in each round. Answers are compared by their tokens a second.
Beside them stand the products of matrices that medtune's turn made, by themselves: their rate is what this
machine gives to such shapes, of which answering reaches a share. Medians of the rounds, with quartiles; the
last line is JSON.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import side
from benchmarks.evaluate_sides import PRODUCTS
from benchmarks.rounds import Spread, in_turns, ratios
from benchmarks.texts import LONG, SHORT, require_prepared
from medtune.core.errors import run

MODULE = "benchmarks.evaluate_sides"
FEW = 8
"""Questions of a turn one at a time: about as long as a turn of all in batches."""
CHOICES = 4
"""One of so many of the questions is asked with choices too."""

Turns = Sequence[Mapping[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluation, side by side.")
    parser.add_argument("--long", action="store_true", help="questions of 300 to 700 tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, help="128 by default, 32 of the long ones")
    parser.add_argument("--cpu-time", action="store_true", help="by the processor, on one thread")
    parser.add_argument("--quick", action="store_true", help="two rounds of 32 questions")
    arguments = parser.parse_args()
    require_prepared()
    texts, rounds = LONG if arguments.long else SHORT, 2 if arguments.quick else arguments.rounds
    count = arguments.questions or (32 if arguments.quick or arguments.long else 128)
    by_processor = arguments.cpu_time
    answered = answers(texts, count, rounds, cpu_time=by_processor)
    chosen = choices(texts, count // CHOICES, rounds, cpu_time=by_processor)
    print_tables(answered, chosen)
    print(json.dumps(summary(answered, chosen) | {"rounds": rounds, "questions": count}))


def answers(texts: str, count: int, rounds: int, *, cpu_time: bool) -> dict[str, Turns]:
    """What the sides report that answer in words; `products` are those of medtune's turn."""
    with side.running(MODULE, ["batched", "one_at_a_time"], texts, str(count), cpu_time=cpu_time) as sides:
        batched, single = sides["batched"], Few(sides["one_at_a_time"], count)
        batched.turn("0:2"), sides["one_at_a_time"].turn("0:1")
        found: dict[str, list[dict[str, Any]]] = {"batched": [], "products": [], "one_at_a_time": []}
        turns = {
            "batched": lambda: [batched.turn("::"), batched.turn(PRODUCTS)],
            "one_at_a_time": lambda: [single.turn()],
        }
        for name, reports in in_turns(turns, rounds).items():
            for one, *other in reports:
                found[name].append(one)
                found["products"] += other
    return dict(found)


def choices(texts: str, count: int, rounds: int, *, cpu_time: bool) -> dict[str, Turns]:
    """What the sides report that score choices."""
    with side.running(
        MODULE, ["choices", "forward_per_choice"], texts, str(count), cpu_time=cpu_time
    ) as sides:
        ours, theirs = sides["choices"], Few(sides["forward_per_choice"], count)
        ours.turn("0:2"), sides["forward_per_choice"].turn("0:1")
        return dict(in_turns({"choices": lambda: ours.turn("::"), "forward_per_choice": theirs.turn}, rounds))


class Few:
    """Turns of a slow side: some questions of every length, others each time."""

    def __init__(self, asked: side.Side, count: int) -> None:
        self._side = asked
        self._step = max(1, count // FEW)
        self._turns = 0

    def turn(self) -> dict[str, Any]:
        """The next few."""
        first = (self._step // 2 + self._turns) % self._step
        self._turns += 1
        return self._side.turn(f"{first}::{self._step}")


def rates(turns: Turns, what: str) -> list[float]:
    """Of each turn, what it did a second."""
    return [turn[what] / turn["seconds"] for turn in turns]


def compared(answered: Mapping[str, Turns], chosen: Mapping[str, Turns]) -> dict[str, Spread]:
    """How many times faster than the plain ways; the share of the products' rate."""
    return {
        "vs_one_at_a_time": ratios(
            rates(answered["batched"], "tokens"), rates(answered["one_at_a_time"], "tokens")
        ),
        "vs_choice_forward": ratios(
            rates(chosen["choices"], "questions"), rates(chosen["forward_per_choice"], "questions")
        ),
        "products_share": ratios(rates(answered["batched"], "flops"), rates(answered["products"], "flops")),
    }


def print_tables(answered: Mapping[str, Turns], chosen: Mapping[str, Turns]) -> None:
    """Speeds and ratios, for people."""
    spreads = compared(answered, chosen)
    side.print_table(
        ["answers", "tokens/s", "questions/s", "times slower", "peak GiB"],
        [
            row("medtune", answered["batched"], "1", "tokens", "questions"),
            row(
                "one at a time",
                answered["one_at_a_time"],
                spreads["vs_one_at_a_time"].shown(1),
                "tokens",
                "questions",
            ),
        ],
    )
    gflops = Spread.of([rate / 1e9 for rate in rates(answered["products"], "flops")])
    print(
        f"Products of the same shapes reach {gflops.shown(0)} GFLOP/s in float32, answering "
        f"{spreads['products_share'].shown()} of that,\n"
        f"counting no padding, which was {padding(answered):.0%} of what ran, and no attention.\n"
    )
    side.print_table(
        ["choices", "questions/s", "times slower", "peak GiB"],
        [
            row("medtune", chosen["choices"], "1", "questions"),
            row(
                "a pass each",
                chosen["forward_per_choice"],
                spreads["vs_choice_forward"].shown(1),
                "questions",
            ),
        ],
    )


def row(label: str, turns: Turns, slower: str, *whats: str) -> list[str]:
    """A line of a table."""
    speeds = [Spread.of(rates(turns, what)).shown(1) for what in whats]
    return [label, *speeds, slower, f"{turns[-1]['peak_gib']:.1f}"]


def padding(answered: Mapping[str, Turns]) -> float:
    """The share of operations for padding, and for answers that had ended, in all of a turn."""
    return 1 - answered["batched"][0]["flops"] / answered["products"][0]["flops"]


def summary(answered: Mapping[str, Turns], chosen: Mapping[str, Turns]) -> dict[str, Any]:
    """Medians, and under `spread` the quartiles of the same figures; whether the answers are the same."""
    spreads = compared(answered, chosen)
    ours = answered["batched"][0]["texts"]
    plain = {key: text for turn in answered["one_at_a_time"] for key, text in turn["texts"].items()}
    likelihoods = chosen["choices"][0]["log_likelihoods"]
    gaps = [
        abs(one - other)
        for turn in chosen["forward_per_choice"]
        for key, values in turn["log_likelihoods"].items()
        for one, other in zip(values, likelihoods[key], strict=True)
    ]
    sides = {**answered, **chosen}
    return {
        **{name: spread.median for name, spread in spreads.items()},
        "spread": {name: spread.as_list() for name, spread in spreads.items()},
        "padding": padding(answered),
        "identical_text": all(ours[key] == text for key, text in plain.items()),
        "texts_compared": len(plain),
        "max_log_likelihood_gap": max(gaps),
        "per_second": {
            "answer_tokens": Spread.of(rates(answered["batched"], "tokens")).median,
            "answers": Spread.of(rates(answered["batched"], "questions")).median,
            "choices": Spread.of(rates(chosen["choices"], "questions")).median,
        },
        "peak_gib": {name: turns[-1]["peak_gib"] for name, turns in sides.items()},
    }


if __name__ == "__main__":
    run(main)
