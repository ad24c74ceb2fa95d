"""How close a predicted answer is to the reference: exact, partial or incorrect, and token-F1.

Text is compared much as in SQuAD (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): lower case,
without punctuation. Only a leading article is dropped, since "hepatitis A" is not "hepatitis", and the
sign of a number is kept. An answer that is a set ("nervous system; musculoskeletal system")
is compared as a set of such texts.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

MatchType = Literal["exact", "partial", "incorrect"]

SET_SEPARATOR = ";"

_TOKEN = re.compile(r"(?<!\S)[<>≤≥±+-]+(?=\d)|\w+")


@dataclass(frozen=True)
class Score:
    """The verdict on one prediction; `token_f1` lies in [0, 1]."""

    match_type: MatchType
    token_f1: float


def score(prediction: str, reference: str, *, is_set: bool, partial_f1: float) -> Score:
    """Compare a prediction with its reference.

    A set is partial when it shares a member with the reference, any other text when its token-F1
    reaches `partial_f1`.
    """
    f1 = token_f1(prediction, reference)
    match_type: MatchType = "incorrect"
    if is_set:
        predicted, expected = as_set(prediction), as_set(reference)
        if predicted == expected:
            match_type = "exact"
        elif predicted & expected:
            match_type = "partial"
    elif normalise(prediction) == normalise(reference):
        match_type = "exact"
    elif f1 >= partial_f1:
        match_type = "partial"
    return Score(match_type, f1)


def normalise(text: str) -> str:
    """Lower case words and signed numbers, single spaces, no leading article; symbols if all is symbols."""
    tokens = _TOKEN.findall(text.lower())
    if len(tokens) > 1 and tokens[0] in ("a", "an", "the"):
        del tokens[0]
    return " ".join(tokens) or text.strip().lower()


def as_set(text: str) -> frozenset[str]:
    """The normalised members of a text joined by ";", empty ones left out."""
    return frozenset(member for part in text.split(SET_SEPARATOR) if (member := normalise(part)))


def token_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the words of the normalised texts, in [0, 1]."""
    predicted, expected = _bag(prediction), _bag(reference)
    shared = (predicted & expected).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / predicted.total(), shared / expected.total()
    return 2 * precision * recall / (precision + recall)


def _bag(text: str) -> Counter[str]:
    return Counter(normalise(text).split())
