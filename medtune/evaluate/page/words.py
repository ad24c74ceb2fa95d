"""Numbers and verdicts in words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from medtune.evaluate.models import OPPONENTS
from medtune.evaluate.page.parts import Chip
from medtune.evaluate.scoring import MEANS

MEASURES = {"accuracy": "exact answers", **MEANS}
"""What a reader calls the measures; the first is a share, the others are means in [0, 1]."""
TONES = {"better": "good", "worse": "bad"}
NOTHING = "\N{EN DASH}"
_SHOWN = {"better": "better than", "worse": "worse than"}


def measure_name(measure: str) -> str:
    """What a reader calls a measure."""
    return MEASURES.get(measure, measure)


def percent(share: float | None) -> str:
    """A share in [0, 1], such as 22.0%."""
    return NOTHING if share is None else f"{100 * share:.1f}%"


def decimal(value: float | None) -> str:
    """A mean in [0, 1] or a loss, such as 0.48."""
    return NOTHING if value is None else _minus(f"{value:.2f}")


def value_of(measure: str, value: float | None) -> str:
    """A measure's value: of exact answers a percentage, of others two decimals."""
    return percent(value) if measure == "accuracy" else decimal(value)


def with_interval(measure: str, figures: Mapping[str, Any]) -> str:
    """Such as 22.0% [17.8%, 26.8%]; without an interval the value alone, without a value a dash."""
    if measure not in figures:
        return NOTHING
    value = value_of(measure, figures[measure])
    low, high = (figures.get(f"{measure}_{end}") for end in ("low", "high"))
    return value if low is None else f"{value} [{value_of(measure, low)}, {value_of(measure, high)}]"


def difference(measure: str, comparison: Mapping[str, Any]) -> str:
    """Such as +22.0 points; of other measures than exact answers +0.32."""
    value = comparison["difference"]
    return f"{_signed(100 * value, 1)} points" if measure == "accuracy" else _signed(value, 2)


def interval(measure: str, comparison: Mapping[str, Any]) -> str:
    """The 95% interval of a difference, such as 17.2 to 26.3."""
    scale, places = (100, 1) if measure == "accuracy" else (1, 2)
    low, high = (_minus(f"{scale * comparison[end]:.{places}f}") for end in ("low", "high"))
    return f"{low} to {high}"


def smallest(measure: str, comparison: Mapping[str, Any]) -> str:
    """The smallest difference that so many questions could have shown."""
    value = comparison.get("smallest")
    if value is None:
        return NOTHING
    return f"{100 * value:.1f} points" if measure == "accuracy" else f"{value:.2f}"


def p_value(value: float | None) -> str:
    """Three decimals; what is smaller is said to be smaller."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def chip(verdict: str) -> Chip:
    """A verdict for a table."""
    return Chip(verdict, TONES.get(verdict, "plain"))


def title_sentence(comparisons: Mapping[str, Any]) -> str:
    """What has been shown against each other side, in one sentence."""
    found = [
        f"{_SHOWN.get(one['verdict'], 'not shown to differ from')} {OPPONENTS[other]} "
        f"({difference('accuracy', one)})"
        for other, metrics in comparisons.items()
        if (one := metrics.get("all", {}).get("accuracy"))
    ]
    return f"The tuned model is {', '.join(found)}." if found else ""


def verdict_sentence(comparison: Mapping[str, Any], other: str) -> str:
    """What a comparison of exact answers with `other` has shown, in a sentence."""
    found = (
        f"{difference('accuracy', comparison)} of exact answers, "
        f"95% interval {interval('accuracy', comparison)}"
    )
    verdict = comparison.get("verdict")
    if verdict in ("better", "worse"):
        return f"The tuned model is {verdict} than {other}: {found}."
    if verdict == "unchanged":
        return f"Against {other} nothing changed: every question has the same verdict."
    power = smallest("accuracy", comparison)
    could = "" if power == NOTHING else f"; these questions could have shown a difference of {power}"
    return f"That the tuned model is better or worse than {other} is not shown: {found}{could}."


def by_kind_sentence(comparisons: Mapping[str, Any]) -> str:
    """Which kinds have which verdict on exact answers, in a sentence; empty without kinds."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for kind, measures in comparisons.get("kinds", {}).items():
        if "accuracy" in measures:
            kinds[measures["accuracy"]["verdict"]].append(kind)
    if not kinds:
        return ""
    order = sorted(kinds, key=lambda verdict: [*TONES, verdict].index(verdict))
    return "By kind: " + "; ".join(f"{verdict} in {_listed(kinds[verdict])}" for verdict in order) + "."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _signed(value: float, places: int) -> str:
    return _minus(f"{value:+.{places}f}")


def _minus(number: str) -> str:
    """With the sign that is as wide as a plus; of a zero without one."""
    if not number.strip("+-0."):
        return number.lstrip("+-")
    return number.replace("-", "\N{MINUS SIGN}")
