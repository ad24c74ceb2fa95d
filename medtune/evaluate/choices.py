"""Questions with choices: which one is picked, and how far the model's own odds can be believed.

As `acc` and `acc_norm` of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness): the
choice whose text has the highest log-likelihood, as it is or per character, since a long choice has a low one
by its length alone. Or the likeliest whole answer, which ends where the choice ends.
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
    """The choices of a question, the log-likelihood of each in nats, and the number of the right one.

    `end_log_likelihoods` are those of the end token after each choice; None where they are not known.
    """

    choices: Sequence[str]
    log_likelihoods: Sequence[float]
    right: int
    end_log_likelihoods: Sequence[float] | None = None

    def pick(self, rule: ChoiceRule) -> int:
        """The number of the choice that a rule picks; of equally likely ones the first.

        Without the likelihoods of end tokens the whole answers are the texts.
        """
        return pick(self.choices, self.log_likelihoods, rule, self.end_log_likelihoods)

    @property
    def probabilities(self) -> np.ndarray:
        """Of the choices, as if one of them had to be said; they add up to 1."""
        return softmax(np.asarray(self.log_likelihoods, dtype=np.float64))

    @property
    def brier(self) -> float:
        """The squared distance of the probabilities from certainty of the right one, in [0, 2]."""
        return float(((self.probabilities - np.eye(len(self.choices))[self.right]) ** 2).sum())


def pick(
    choices: Sequence[str],
    log_likelihoods: Sequence[float],
    rule: ChoiceRule,
    end_log_likelihoods: Sequence[float] | None = None,
) -> int:
    """The number of the choice that a rule picks; see `Ballot.pick`."""
    return likeliest(choices, log_likelihoods, rule, end_log_likelihoods)[0]


def likeliest(
    choices: Sequence[str],
    log_likelihoods: Sequence[float],
    rule: ChoiceRule,
    end_log_likelihoods: Sequence[float] | None = None,
) -> list[int]:
    """The numbers of the choices that are the likeliest by a rule: several where they are equally likely."""
    ends = end_log_likelihoods or [0.0] * len(choices)
    scores = list(log_likelihoods)
    if rule == "per_character":
        scores = [value / len(choice) for choice, value in zip(choices, scores, strict=True)]
    elif rule == "whole":
        scores = [value + end for value, end in zip(scores, ends, strict=True)]
    return [number for number, score in enumerate(scores) if score == max(scores)]


def choice_figures(ballots: Sequence[Ballot]) -> dict[str, Any]:
    """Accuracy by each rule, Brier score (1950), expected calibration error, and positions.

    The formulas are in docs/evaluation.md. Less is better for the Brier score and the calibration error.
    """
    known = all(one.end_log_likelihoods is not None for one in ballots)
    rules = [rule for rule in RULES if known or rule != "whole"]
    picked = {rule: [one.pick(rule) for one in ballots] for rule in rules}
    right = [one.right for one in ballots]
    hits = {rule: [float(a == b) for a, b in zip(picked[rule], right, strict=True)] for rule in rules}
    return {
        "choices": len(ballots),
        "chance": mean([1 / len(one.choices) for one in ballots]),
        **{f"accuracy_{rule}": mean(hits[rule]) for rule in rules},
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
