"""Questions with choices: which one is picked, and how far the model's own odds can be believed.

As `acc` and `acc_norm` of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness): the
choice with the highest log-likelihood, as it is or per character, since a long choice has a low one by its
length alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from scipy.special import softmax

from medtune.evaluate.params import ChoiceRule
from medtune.evaluate.statistics import mean

RULES: tuple[ChoiceRule, ...] = get_args(ChoiceRule)
BINS = 10
"""Of equal width, over the probability of the pick."""


@dataclass(frozen=True)
class Ballot:
    """The choices of a question, the log-likelihood of each in nats, and the number of the right one."""

    choices: Sequence[str]
    log_likelihoods: Sequence[float]
    right: int

    @property
    def probabilities(self) -> np.ndarray:
        """Of the choices, as if one of them had to be said; they add up to 1."""
        return softmax(np.asarray(self.log_likelihoods, dtype=np.float64))

    @property
    def brier(self) -> float:
        """The squared distance of the probabilities from certainty of the right one, in [0, 2]."""
        return float(((self.probabilities - np.eye(len(self.choices))[self.right]) ** 2).sum())


def pick(choices: Sequence[str], log_likelihoods: Sequence[float], rule: ChoiceRule) -> int:
    """The number of the choice that a rule picks; of equally likely ones the first."""
    scores = [
        value / len(choice) if rule == "per_character" else value
        for choice, value in zip(choices, log_likelihoods, strict=True)
    ]
    return scores.index(max(scores))


def choice_figures(ballots: Sequence[Ballot]) -> dict[str, Any]:
    """Accuracy by either rule, Brier score (1950), expected calibration error, and positions.

    The formulas are in docs/evaluation.md. Less is better for the Brier score and the calibration error.
    """
    picked = {rule: [pick(one.choices, one.log_likelihoods, rule) for one in ballots] for rule in RULES}
    right = [one.right for one in ballots]
    hits = {rule: [float(a == b) for a, b in zip(picked[rule], right, strict=True)] for rule in RULES}
    return {
        "choices": len(ballots),
        "chance": mean([1 / len(one.choices) for one in ballots]),
        **{f"accuracy_{rule}": mean(hits[rule]) for rule in RULES},
        "brier": mean([one.brier for one in ballots]),
        "calibration_error": calibration_error(
            [float(one.probabilities.max()) for one in ballots], hits["sum"]
        ),
        "right_positions": _counted(right),
        "picked_positions": _counted(picked["sum"]),
    }


def calibration_error(probabilities: Sequence[float], hits: Sequence[float]) -> float:
    """How far probabilities of picks are from the share of those that hit, in bins: a mean in [0, 1].

    Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602.
    """
    bins = np.minimum((np.asarray(probabilities) * BINS).astype(int), BINS - 1)
    gaps = np.asarray(hits) - np.asarray(probabilities)
    return float(sum(abs(gaps[bins == number].sum()) for number in range(BINS)) / len(gaps))


def _counted(positions: Sequence[int]) -> list[int]:
    """How often each position, from the first."""
    counts = Counter(positions)
    return [counts[position] for position in range(max(positions) + 1)]
