"""The figures of one model, or of a lookup, over its predictions: shares and means with their intervals."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from medtune.evaluate.choices import choice_figures
from medtune.evaluate.confusion import by_answer, by_member
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import Prediction, by_kind
from medtune.evaluate.scoring import MEANS
from medtune.evaluate.statistics import bootstrap_interval, mean, share_interval

Predictions = Mapping[str, Sequence[Prediction]]
"""By model, the tuned one first in nothing but meaning: it has all examples, others may lack some."""


def table(predictions: Predictions, params: EvaluateParams, confused: Collection[str] = ()) -> dict[str, Any]:
    """Figures of every model: {"all": {MODEL: ...}, "kinds": {KIND: {MODEL: ...}}}.

    Over all stand only models that have a prediction for every example that any of them has. Of the models in
    `confused` the kinds also say what was answered instead of what.
    """
    most = max(map(len, predictions.values()), default=0)
    kinds: dict[str, dict[str, Any]] = {}
    for model, all_of_them in predictions.items():
        for kind, some in by_kind(all_of_them):
            kinds.setdefault(kind, {})[model] = figures(some, params)
            if model in confused:
                kinds[kind][model] |= _confusion(some, kind, params)
    whole = {model: some for model, some in predictions.items() if len(some) == most}
    return {
        "all": {model: figures(some, params) for model, some in whole.items()},
        "kinds": dict(sorted(kinds.items())),
    }


def figures(predictions: Sequence[Prediction], params: EvaluateParams) -> dict[str, Any]:
    """Counts, accuracy, mean token-F1 and chrF with intervals, and the figures of choices.

    What no prediction has a value of is left out.
    """
    n = len(predictions)
    matches = Counter(prediction.score.match_type for prediction in predictions)
    low, high = share_interval(
        [one.correct for one in predictions], [one.example.group for one in predictions]
    )
    found: dict[str, Any] = {
        "n": n,
        "accuracy": matches["exact"] / n,
        "accuracy_low": low,
        "accuracy_high": high,
        "exact_matches": matches["exact"],
        "partial_matches": matches["partial"],
        "incorrect": matches["incorrect"],
        "truncated": sum(prediction.answer.truncated for prediction in predictions) / n,
    }
    for name in MEANS:
        found |= _mean_with_interval(name, predictions, params)
    ballots = [ballot for one in predictions if (ballot := one.ballot) is not None]
    return found | (choice_figures(ballots) if ballots else {})


def accuracy(predictions: Sequence[Prediction]) -> float:
    """The share of exact answers."""
    return sum(prediction.correct for prediction in predictions) / len(predictions)


def _mean_with_interval(
    name: str, predictions: Sequence[Prediction], params: EvaluateParams
) -> dict[str, float]:
    known = [(one, value) for one in predictions if (value := getattr(one.score, name)) is not None]
    if not known:
        return {}
    values, groups = [value for _, value in known], [one.example.group for one, _ in known]
    low, high = bootstrap_interval(values, groups, params.seed)
    return {name: mean(values), f"{name}_low": low, f"{name}_high": high}


def _confusion(predictions: Sequence[Prediction], kind: str, params: EvaluateParams) -> dict[str, Any]:
    if kind in params.set_kinds:
        found, name = by_member(predictions), "by_member"
    else:
        found, name = by_answer(predictions), "by_answer"
    return {name: found} if found else {}
