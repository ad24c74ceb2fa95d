"""What difference a test set can show, before anything is trained.

Two sides answer the same questions, and what tells them apart are those that one of them alone answers. With
so large a share of those (the discordance), a difference is shown in 8 of 10 cases, at the level that the
evaluation judges by, if it is as large as Connor's formula says (1987, https://doi.org/10.2307/2531961):

    difference * sqrt(n) = z(1 - level / 2) * sqrt(discordance)
                         + z(0.8) * sqrt(discordance - difference ** 2)

Questions of one group say less than as many of different groups: `n` is their number over the design effect.
tests/commands/test_power.py tries it on drawn answers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import norm

from medtune.core.outputs import read_json
from medtune.evaluate.comparison import LEVEL
from medtune.evaluate.statistics import CONFIDENCE, POWER

DETAILS_FILE = Path("metrics/details.json")
ASSUMED = 0.25
"""The discordance where no evaluation has shown one."""
ASSUMPTION = f"assumed, that two sides differ on {ASSUMED:.0%} of the questions"
SIZES = (100, 300, 1273)
"""Of tests that are not made yet, MedQA's last."""
MORE = 4
"""So many times the questions show about half the difference."""


@dataclass(frozen=True)
class Sides:
    """How two sides differ from question to question: the share of questions that one alone answers, and by
    how much the groups of questions widen an interval (1: not at all).
    """

    discordance: float = ASSUMED
    design_effect: float = 1.0

    @classmethod
    def of(cls, accuracy: Mapping[str, Any]) -> "Sides":
        """Those of a comparison in metrics/details.json."""
        n, difference = accuracy["n"], accuracy["difference"]
        discordance = (accuracy["gained"] + accuracy["lost"]) / n
        error = (accuracy["high"] - accuracy["low"]) / 2 / float(norm.ppf((1 + CONFIDENCE) / 2))
        alone = (discordance - difference**2) / n
        # Below 1 it is chance: groups rarely make questions say more.
        return cls(discordance, max(1.0, error**2 / alone) if alone > 0 else 1.0)

    def shown_by(self, questions: int, level: float = LEVEL) -> str:
        """The smallest difference that so many questions show, in words."""
        found = smallest_difference(questions / self.design_effect, self.discordance, level)
        return "none" if found is None else f"{100 * found:.1f} points"


def smallest_difference(questions: float, discordance: float, level: float = LEVEL) -> float | None:
    """The smallest difference (a share, such as 0.08) that so many questions show; None: they show none.

    At least as many questions have to tell the sides apart as a test of signs takes at this level.
    """
    needed = math.ceil(1 - math.log2(level))
    if questions * discordance < needed:
        return None
    z_level, z_power = float(norm.ppf(1 - level / 2)), float(norm.ppf(POWER))
    # The formula above, squared, is a quadratic equation in the difference.
    half = math.sqrt(questions) * z_level * math.sqrt(discordance)
    square = questions + z_power**2
    rest = (z_level**2 - z_power**2) * discordance
    found = (half + math.sqrt(max(0.0, half**2 - square * rest))) / square
    return None if found > discordance else max(found, needed / questions)


def describe_power(kinds: Mapping[str, int] | None) -> str:
    """What the test can show, for its numbers of questions by kind, in words; None: not known yet."""
    head = (
        f"The smallest difference in exact answers that is shown ({POWER:.0%} of the time, level {LEVEL:.0%})"
    )
    if kinds is None:
        sizes = "; ".join(f"{n:,} questions: {Sides().shown_by(n)}" for n in SIZES)
        unknown = "; the number of test questions is not known before `dvc repro prepare`"
        return f"{head}{unknown}:\n{ASSUMPTION}: {sizes}"
    total, lines = sum(kinds.values()), [f"{head}:"]
    for other, comparison in _last_comparisons().items():
        sides = Sides.of(comparison["all"]["accuracy"])
        lines.append(
            f"sides that differ as the tuned model and {other} in the last evaluation, on "
            f"{sides.discordance:.0%} of the questions: {_shown(total, sides)}"
        )
        if len(kinds) > 1:
            lines.append(_by_kind(kinds, comparison["kinds"]))
    return "\n".join(lines if len(lines) > 1 else [*lines, f"{ASSUMPTION}: {_shown(total, Sides())}"])


def power_as_json(kinds: Mapping[str, int] | None) -> dict[str, Any]:
    """The same of all questions together, for programs: differences as shares, None if none can be shown."""
    sides = {name: Sides.of(one["all"]["accuracy"]) for name, one in _last_comparisons().items()}
    if kinds is None or not sides:
        sides = {"assumed": Sides()}
    questions = list(SIZES) if kinds is None else [sum(kinds.values())]
    return {
        name: {
            "discordance": one.discordance,
            "design_effect": one.design_effect,
            "smallest": {
                str(n): smallest_difference(n / one.design_effect, one.discordance) for n in questions
            },
        }
        for name, one in sides.items()
    }


def _last_comparisons() -> dict[str, dict[str, Any]]:
    """The comparisons of the last evaluation by the other side, if in them anything told the sides apart."""
    try:
        found = read_json(DETAILS_FILE)["comparisons"]
        return {
            {"base": "the untuned one", "lookup": "the best lookup"}.get(name, name): comparison
            for name, comparison in found.items()
            if Sides.of(comparison["all"]["accuracy"]).discordance > 0
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _by_kind(kinds: Mapping[str, int], comparisons: Mapping[str, Any]) -> str:
    """Each kind by its own discordance, at a level corrected for their number as the evaluation does."""
    said = []
    for kind, n in kinds.items():
        sides = Sides.of(comparisons[kind]["accuracy"]) if kind in comparisons else Sides()
        said.append(f"{kind} ({n}) {sides.shown_by(n, LEVEL / len(kinds))}")
    return f"  by kind, corrected for {len(kinds)}: {', '.join(said)}"


def _shown(questions: int, sides: Sides) -> str:
    more = MORE * questions
    return f"{questions:,} show {sides.shown_by(questions)}, {more:,} would show {sides.shown_by(more)}"
