"""How close a predicted answer is to the reference: exact, partial or incorrect, and token-F1.

Texts are compared by their words (medtune/evaluate/wording.py), much as in SQuAD (Rajpurkar et al. 2016,
https://arxiv.org/abs/1606.05250). An answer that is a set ("nervous system; musculoskeletal system") is
compared as a set of such texts. A choice is right if it is the answer, and has neither a part nor an F1.
docs/evaluation.md has the rules, each with an example.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sacrebleu.metrics.chrf import CHRF

from medtune.evaluate.contradiction import contradict
from medtune.evaluate.wording import members, words

MatchType = Literal["exact", "partial", "incorrect"]
RANK: dict[MatchType, int] = {"incorrect": 0, "partial": 1, "exact": 2}
"""Which of two verdicts is the better one."""
MEANS = {"token_f1": "token-F1", "chrf": "chrF"}
"""The fields of a Score, in [0, 1], of which means are given and compared, and what a reader calls them."""
_CHRF = CHRF(lowercase=True)


@dataclass(frozen=True)
class Score:
    """The verdict on one prediction; `token_f1` and `chrf` lie in [0, 1].

    A choice has neither, and of a set, in which order does not matter, there is no chrF.
    """

    match_type: MatchType
    token_f1: float | None = None
    chrf: float | None = None


def score(prediction: str, reference: str, *, is_set: bool, partial_f1: float) -> Score:
    """Compare a prediction with its reference.

    A set is partial when it shares a member with the reference, any other text when its token-F1 reaches
    `partial_f1` and it does not say the opposite.
    """
    predicted, expected = words(prediction), words(reference)
    f1 = token_f1(predicted, expected)
    match_type: MatchType = "incorrect"
    if is_set:
        ours, theirs = members(prediction), members(reference)
        if ours and ours == theirs:
            match_type, f1 = "exact", 1.0
        elif ours & theirs:
            match_type = "partial"
    elif predicted and predicted == expected:
        match_type = "exact"
    elif f1 >= partial_f1 and not contradict(predicted, expected):
        match_type = "partial"
    return Score(match_type, f1, None if is_set else chrf(prediction, reference))


def score_choice(prediction: str, reference: str) -> Score:
    """Whether the picked choice is the answer, to the letter: choices may differ in a sign alone."""
    return Score("exact" if prediction == reference else "incorrect")


def token_f1(predicted: Sequence[str], expected: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words, in [0, 1]; repeated ones count repeatedly."""
    shared = (Counter(predicted) & Counter(expected)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def chrf(prediction: str, reference: str) -> float:
    """F2 over the character n-grams of 1 to 6 of two texts in lower case, in [0, 1]: order matters.

    chrF as sacrebleu has it (Popović 2015, https://aclanthology.org/W15-3049).
    """
    return float(_CHRF.sentence_score(prediction, [reference]).score) / 100
