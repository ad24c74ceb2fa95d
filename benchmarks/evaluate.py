"""How fast questions are answered beside the plain ways, and whether the answers are the same.

    python -m benchmarks.evaluate [--quick]

The untuned base model in float32 gets test questions of data/prepared. Each side runs in a process of its
own, one after the other. The last line is JSON.
"""

import argparse
import json
from functools import partial

from benchmarks import side

QUESTIONS, QUICK_QUESTIONS = 192, 32


def main(quick: bool) -> None:
    measure = partial(side.measure, "benchmarks.evaluate_sides")
    count = QUICK_QUESTIONS if quick else QUESTIONS
    batched, single = measure("batched", count), measure("one_at_a_time", count)
    choices, passes = measure("choices", count), measure("forward_per_choice", count)

    answers, scores = single["seconds"] / batched["seconds"], passes["seconds"] / choices["seconds"]
    side.print_table(
        ["answers", "questions/s", "ratio", "peak GiB"],
        [
            row("medtune", batched, count, 1.0),
            row("one at a time", single, count, answers),
        ],
    )
    side.print_table(
        ["choices", "questions/s", "ratio", "peak GiB"],
        [
            row("medtune", choices, count, 1.0),
            row("a pass each", passes, count, scores),
        ],
    )
    gaps = [
        abs(one - other)
        for ours, theirs in zip(choices["log_likelihoods"], passes["log_likelihoods"], strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    print(
        json.dumps(
            {
                "vs_one_at_a_time": answers,
                "identical_text": batched["texts"] == single["texts"],
                "vs_choice_forward": scores,
                "max_log_likelihood_gap": max(gaps),
            }
        )
    )


def row(label: str, measured: dict[str, float], count: int, ratio: float) -> list[str]:
    """A line of the table; the ratio is how many times faster the first side is."""
    return [label, f"{count / measured['seconds']:.2f}", f"{ratio:.1f}", f"{measured['peak_gib']:.1f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluation, side by side.")
    parser.add_argument("--quick", action="store_true", help="fewer questions: under five minutes")
    main(parser.parse_args().quick)
