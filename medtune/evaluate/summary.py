"""From predictions to metrics: which examples are asked, how their scores add up."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import unit_hash
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.scoring import Score, score
from medtune.evaluate.statistics import bootstrap_interval, wilson_interval


@dataclass(frozen=True)
class Prediction:
    """A model's answer to an example and its score; `truncated` if it ran into the length limit.

    An answer picked from choices comes with the log-likelihood of each, in nats and their order.
    """

    example: Example
    text: str
    truncated: bool
    score: Score
    log_likelihoods: list[float] | None = None


def select_indices(examples: Sequence[Example], params: EvaluateParams) -> list[int]:
    """Indices of the examples to ask: up to `examples_per_kind` of each kind, drawn by `seed`."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(examples)), key=lambda index: unit_hash(params.seed, examples[index].id)):
        kinds[examples[index].kind].append(index)
    if unknown := sorted(set(params.set_kinds) - set(kinds)):
        accepted = ", ".join(sorted(kinds))
        raise MedtuneError(
            f"params.yaml: evaluate.set_kinds has '{unknown[0]}'; kinds of the test split: {accepted}"
        )
    return sorted(index for drawn in kinds.values() for index in drawn[: params.examples_per_kind])


def predict(
    example: Example,
    text: str,
    truncated: bool,
    params: EvaluateParams,
    log_likelihoods: list[float] | None = None,
) -> Prediction:
    """Score one answer against its example."""
    is_set = example.kind in params.set_kinds
    verdict = score(text, example.answer, is_set=is_set, partial_f1=params.partial_f1)
    return Prediction(example, text, truncated, verdict, log_likelihoods)


def summarise(
    predictions: Sequence[Prediction],
    params: EvaluateParams,
    unquantized: Sequence[Prediction] | None = None,
) -> dict[str, Any]:
    """The content of `metrics/evaluation.json`: figures over all examples, and for each kind.

    `unquantized` are the predictions for the same examples on the unquantised base: how far do they drift?
    """
    kinds = sorted({prediction.example.kind for prediction in predictions})
    summary = _figures(predictions, params.seed) | {
        "kinds": {
            kind: _figures([p for p in predictions if p.example.kind == kind], params.seed) for kind in kinds
        }
    }
    if unquantized is not None:
        pairs = zip(predictions, unquantized, strict=True)
        same = sum(one.text == other.text for one, other in pairs) / len(predictions)
        summary["unquantized"] = _figures(unquantized, params.seed) | {"same_answers": same}
    return summary


def detail(
    predictions: Sequence[Prediction],
    indices: Sequence[int],
    unquantized: Sequence[Prediction] | None = None,
) -> dict[str, Any]:
    """The content of `metrics/evaluation_results.json`: every prediction beside its reference."""
    matches = Counter(prediction.score.match_type for prediction in predictions)
    results = [
        {
            "id": prediction.example.id,
            "kind": prediction.example.kind,
            "question": prediction.example.question,
            "ground_truth": prediction.example.answer,
            "prediction": prediction.text,
            "correct": prediction.score.match_type == "exact",
            "match_type": prediction.score.match_type,
            "token_f1": prediction.score.token_f1,
            "truncated": prediction.truncated,
        }
        for prediction in predictions
    ]
    for row, prediction in zip(results, predictions, strict=True):
        if prediction.log_likelihoods is not None:
            choices = prediction.example.choices or []
            row["log_likelihoods"] = dict(zip(choices, prediction.log_likelihoods, strict=True))
    for row, other in zip(results, unquantized or (), strict=unquantized is not None):
        row["unquantized"] = {"prediction": other.text, "truncated": other.truncated}
    return {
        "accuracy": matches["exact"] / len(predictions),
        "exact_matches": matches["exact"],
        "partial_matches": matches["partial"],
        "incorrect": matches["incorrect"],
        "selected_indices": list(indices),
        "results": results,
    }


def describe(summary: Mapping[str, Any]) -> str:
    """The figures of `summarise` for a person to read: a line a kind."""
    rows = [*summary["kinds"].items(), ("all", summary)]
    if "unquantized" in summary:
        rows.append(("unquantized", summary["unquantized"]))
    return "\n".join(
        f"{kind:<14} exact {figures['exact_matches']:>4} of {figures['n']}"
        f" ({figures['accuracy_low']:.0%} to {figures['accuracy_high']:.0%}),"
        f" partial {figures['partial_matches']:>4}, token-F1 {figures['token_f1']:.2f}"
        for kind, figures in rows
    )


def _figures(predictions: Sequence[Prediction], seed: int) -> dict[str, Any]:
    n = len(predictions)
    matches = Counter(prediction.score.match_type for prediction in predictions)
    accuracy_low, accuracy_high = wilson_interval(matches["exact"], n)
    f1 = [prediction.score.token_f1 for prediction in predictions]
    f1_low, f1_high = bootstrap_interval(f1, seed)
    return {
        "n": n,
        "accuracy": matches["exact"] / n,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "exact_matches": matches["exact"],
        "partial_matches": matches["partial"],
        "incorrect": matches["incorrect"],
        "token_f1": sum(f1) / n,
        "token_f1_low": f1_low,
        "token_f1_high": f1_high,
        "truncated": sum(prediction.truncated for prediction in predictions) / n,
    }
