"""Two sides on the same questions: is one better, or was it luck?

For each metric the difference with its interval, by a bootstrap over groups of the paired differences; a
p-value that takes a group as one observation; and one word. `better` and `worse` are said if both agree: the
interval excludes no difference, and p, corrected for the number of kinds by Holm's method, is below 5%.
Everything else is `not shown`, with the smallest difference that these questions could have shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from typing import Any, Literal

from medtune.evaluate.predictions import Prediction, by_kind
from medtune.evaluate.scoring import MEANS
from medtune.evaluate.statistics import (
    CONFIDENCE,
    Interval,
    bootstrap_interval,
    holm,
    mean,
    sign_flip_p,
    sign_test_p,
    smallest_shown,
)

Verdict = Literal["better", "worse", "not shown"]
LEVEL = 1 - CONFIDENCE


@dataclass(frozen=True)
class Metric:
    """A figure that each prediction has a value of, or None; its mean is what is compared."""

    name: str
    value: Callable[[Prediction], float | None]
    more_is_better: bool = True
    scale: Interval = (-1.0, 1.0)
    """The range of a difference."""


METRICS = (
    Metric("accuracy", lambda one: float(one.correct)),
    *(Metric(name, attrgetter(f"score.{name}")) for name in MEANS),
    Metric("brier", lambda one: one.ballot.brier if one.ballot else None, False, (-2.0, 2.0)),
)


@dataclass(frozen=True)
class Comparison:
    """`after` against `before` on `n` questions in so many groups; the difference is after - before.

    `mcnemar_p`, `gained` and `lost` (questions) are those of the accuracy. `p_adjusted` is `p_value`
    corrected for the kinds that are compared at once. `smallest` is the smallest difference these questions
    could have shown, None if none.
    """

    n: int
    groups: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    mcnemar_p: float | None
    verdict: Verdict
    smallest: float | None
    gained: int | None
    lost: int | None


def compare(
    before: Sequence[Prediction], after: Sequence[Prediction], seed: int
) -> dict[str, dict[str, Any]]:
    """Comparisons as JSON values: {"all": {METRIC: ...}, "kinds": {KIND: {METRIC: ...}}}.

    Both sides are predictions for the same examples in the same order. A metric that some example has no
    value of on one of the sides is compared on the others.
    """
    kinds = [kind for kind, _ in by_kind(before)]
    found: dict[str, dict[str, Any]] = {"all": {}, "kinds": {kind: {} for kind in kinds}}
    for metric in METRICS:
        pairs = _pairs(metric, before, after)
        if not pairs:
            continue
        found["all"][metric.name] = asdict(_compared(metric, pairs, seed))
        parts = {kind: part for kind in kinds if (part := [pair for pair in pairs if pair.kind == kind])}
        compared = [_compared(metric, part, seed, tests=len(parts)) for part in parts.values()]
        adjusted = holm([one.p_value for one in compared])
        for kind, one, p_value in zip(parts, compared, adjusted, strict=True):
            found["kinds"][kind][metric.name] = asdict(_judged(replace(one, p_adjusted=p_value), metric))
    return found


@dataclass(frozen=True)
class _Pair:
    kind: str
    group: str
    before: float
    after: float


def _pairs(metric: Metric, before: Sequence[Prediction], after: Sequence[Prediction]) -> list[_Pair]:
    found = []
    for one, other in zip(before, after, strict=True):
        values = metric.value(one), metric.value(other)
        if values[0] is not None and values[1] is not None:
            found.append(_Pair(one.example.kind, one.example.group, values[0], values[1]))
    return found


def _compared(metric: Metric, pairs: Sequence[_Pair], seed: int, tests: int = 1) -> Comparison:
    """One comparison of `tests` that are made at once, before their correction."""
    differences = [pair.after - pair.before for pair in pairs]
    groups = [pair.group for pair in pairs]
    low, high = bootstrap_interval(differences, groups, seed, scale=metric.scale)
    p_value = sign_flip_p(differences, groups, seed)
    gained, lost = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    counted = metric.name == "accuracy"
    return _judged(
        Comparison(
            n=len(pairs),
            groups=len(set(groups)),
            before=mean([pair.before for pair in pairs]),
            after=mean([pair.after for pair in pairs]),
            difference=mean(differences),
            low=low,
            high=high,
            p_value=p_value,
            p_adjusted=p_value,
            mcnemar_p=sign_test_p(gained, gained + lost) if counted else None,
            verdict="not shown",
            smallest=smallest_shown(differences, groups, LEVEL / tests),
            gained=gained if counted else None,
            lost=lost if counted else None,
        ),
        metric,
    )


def _judged(one: Comparison, metric: Metric) -> Comparison:
    shown = one.p_adjusted < LEVEL and not one.low <= 0 <= one.high
    verdict: Verdict = "not shown"
    if shown:
        verdict = "better" if (one.difference > 0) == metric.more_is_better else "worse"
    return replace(one, verdict=verdict)
