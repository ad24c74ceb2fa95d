"""What a few steps of a revision gave, and how two of them differ: not at all, within rounding, or truly."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file

Verdict = Literal["same", "within rounding", "truly", "not run"]
ORDER: tuple[Verdict, ...] = ("same", "within rounding", "truly", "not run")
PARTS = ("questions", "training", "answers", "figures")
"""What is compared, from where a difference would begin to where it would arrive."""
MARGIN = 16.0
"""So many times what summing up in another order does is still called rounding."""
FLOOR = 2.0**-22
"""Of the size of a number: four units of the last place of float32. Less is not told apart."""
CEILING = 0.01
"""Of the size of a number: more is never called rounding."""


@dataclass(frozen=True)
class Outcome:
    """What a trial left.

    `questions` are digests of what other stages read of `prepare`; `losses` and `norms` are by step, in nats
    per answer token and as lengths; `weights` is the adapter's file; `answers` are rows by file and id;
    `figures` are those of the few answers. `failed` says which stage did not run and why.
    """

    questions: Mapping[str, str] = field(default_factory=dict)
    losses: Sequence[float] = ()
    norms: Sequence[float] = ()
    validation_loss: float | None = None
    planned: int | None = None
    weights: Path | None = None
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    failed: str | None = None

    @property
    def reached(self) -> tuple[str, ...]:
        """The parts that were made."""
        made = (self.questions, self.losses, self.answers, self.figures)
        return tuple(part for part, content in zip(PARTS, made, strict=True) if content)


@dataclass(frozen=True)
class Sizes:
    """How far two outcomes are apart, by quantity; what has no size (a text, a shape) is in `otherwise`.

    Quantities are relative: losses and norms to themselves, the adapter to its length, log-likelihoods to
    their own size. 0 is the same to the last bit.
    """

    numbers: Mapping[str, float]
    otherwise: Mapping[str, str]


PART_OF = {
    "loss": "training",
    "gradient norm": "training",
    "validation loss": "training",
    "adapter": "training",
    "log-likelihood": "answers",
    "figure": "figures",
}


def sizes(one: Outcome, other: Outcome) -> Sizes:
    """Compare what both have made."""
    numbers: dict[str, float] = {}
    otherwise: dict[str, str] = {}
    both = [part for part in PARTS if part in one.reached and part in other.reached]
    if "questions" in both and one.questions != other.questions:
        names = sorted(n for n in one.questions if one.questions[n] != other.questions.get(n))
        otherwise["questions"] = f"other {', '.join(names)}"
    if "training" in both:
        numbers |= dict(_training(one, other, otherwise))
    if "answers" in both:
        numbers["log-likelihood"] = _answers(one, other, otherwise)
    if "figures" in both:
        figures = list(_figures(one.figures, other.figures))
        numbers["figure"] = max(figures, default=0.0)
    return Sizes(numbers, otherwise)


def judge(found: Sizes, bounds: Mapping[str, float] | None) -> dict[str, Verdict]:
    """A verdict for each part that both have made; without bounds whatever differs differs truly."""
    verdicts: dict[str, Verdict] = {}
    for quantity, size in found.numbers.items():
        part = PART_OF[quantity]
        bound = (bounds or {}).get(quantity, 0.0)
        one: Verdict = "same" if size == 0 else "within rounding" if size <= bound else "truly"
        verdicts[part] = worst([verdicts.get(part, "same"), one])
    for part in found.otherwise:
        verdicts[part] = "truly"
    return verdicts


def bounds_of(yardstick: Sizes) -> dict[str, float]:
    """Up to where a difference is called rounding: by what the same sums in another order differ by.

    Never more than CEILING, but for the adapter: Adam divides a gradient by its own size, so that where it is
    all but zero rounding alone decides the sign of a step.
    """
    found = {name: max(MARGIN * size, FLOOR) for name, size in yardstick.numbers.items()}
    return {name: bound if name == "adapter" else min(bound, CEILING) for name, bound in found.items()}


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The one that says most of a difference."""
    return max(verdicts, key=ORDER.index, default="same")


def _training(one: Outcome, other: Outcome, otherwise: dict[str, str]) -> Iterator[tuple[str, float]]:
    if len(one.losses) != len(other.losses):
        otherwise["training"] = f"{len(one.losses)} steps, {len(other.losses)} steps"
    yield "loss", _apart(one.losses, other.losses)
    yield "gradient norm", _apart(one.norms, other.norms)
    if one.validation_loss is not None and other.validation_loss is not None:
        yield "validation loss", _apart([one.validation_loss], [other.validation_loss])
    if one.weights and other.weights:
        distance = _weights_apart(one.weights, other.weights)
        if distance is None:
            otherwise["training"] = "an adapter of another shape"
        else:
            yield "adapter", distance


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest difference of two numbers of the same step, of the size of the larger."""
    pairs = zip(one, other, strict=False)
    return max((_relative(a, b) for a, b in pairs), default=0.0)


def _relative(a: float, b: float) -> float:
    if a == b:
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))


def _weights_apart(one: Path, other: Path) -> float | None:
    """The length of the difference of two adapters by that of what was learned; None for other shapes.

    What was learned is what starts at zero, the matrices B: A is random, and would hide a difference.
    """
    old, new = load_file(one), load_file(other)
    if {name: part.shape for name, part in old.items()} != {name: part.shape for name, part in new.items()}:
        return None
    if all(np.array_equal(old[name], new[name]) for name in old):
        return 0.0
    difference = math.sqrt(sum(float(np.square(old[n] - new[n], dtype=np.float64).sum()) for n in old))
    learned = math.sqrt(
        sum(float(np.square(part, dtype=np.float64).sum()) for n, part in old.items() if "lora_B" in n)
    )
    return difference / learned if learned else math.inf


def _answers(one: Outcome, other: Outcome, otherwise: dict[str, str]) -> float:
    largest, texts = 0.0, 0
    for file in sorted(one.answers.keys() | other.answers.keys()):
        before, after = one.answers.get(file, {}), other.answers.get(file, {})
        if before.keys() != after.keys():
            otherwise["answers"] = "other questions are asked"
        for name in before.keys() & after.keys():
            old, new = before[name], after[name]
            texts += old["text"] != new["text"] or old["tokens"] != new["tokens"]
            for key in ("log_likelihoods", "end_log_likelihoods"):
                first, second = old.get(key) or [], new.get(key) or []
                largest = max(largest, _apart(first, second))
                if len(first) != len(second):
                    otherwise["answers"] = "other choices"
    if texts:
        otherwise["answers"] = f"{texts} other answers"
    return largest


def _figures(one: Any, other: Any) -> Iterator[float]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in one.keys() | other.keys():
            yield from _figures(one.get(name), other.get(name))
    elif isinstance(one, (int, float)) and isinstance(other, (int, float)):
        yield _relative(float(one), float(other))
    else:
        yield 0.0 if one == other else math.inf
