"""Every prediction beside its reference: `metrics/evaluation_results.json`, `baseline_results.json`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from medtune.evaluate.figures import accuracy
from medtune.evaluate.lookups import Relative
from medtune.evaluate.predictions import Prediction
from medtune.evaluate.scoring import MEANS


def results(
    predictions: Sequence[Prediction],
    indices: Sequence[int],
    relatives: Sequence[Relative | None] | None = None,
    unquantized: Sequence[Prediction] = (),
) -> dict[str, Any]:
    """The content of such a file; `indices` are those of the examples in the test split."""
    matches = Counter(prediction.score.match_type for prediction in predictions)
    rows = [_row(prediction) for prediction in predictions]
    for row, relative in zip(rows, relatives or (), strict=relatives is not None):
        if relative is not None:
            row["nearest"] = {"id": relative.id, "similarity": relative.similarity}
    for row, other in zip(rows, unquantized, strict=bool(unquantized)):
        row["unquantized"] = {"prediction": other.answer.text, "truncated": other.answer.truncated}
    return {
        "accuracy": accuracy(predictions),
        "exact_matches": matches["exact"],
        "partial_matches": matches["partial"],
        "incorrect": matches["incorrect"],
        "selected_indices": list(indices),
        "results": rows,
    }


def _row(prediction: Prediction) -> dict[str, Any]:
    example, answer = prediction.example, prediction.answer
    row: dict[str, Any] = {
        "id": example.id,
        "kind": example.kind,
        "group": example.group,
        **({"messages": [one.model_dump() for one in example.messages]} if example.messages else {}),
        **({"context": example.context} if example.context else {}),
        "question": example.question,
        **({"choices": example.choices} if example.choices else {}),
        "ground_truth": example.answer,
        **({"answers": example.answers} if example.answers else {}),
        "prediction": answer.text,
        "correct": prediction.correct,
        "match_type": prediction.score.match_type,
        "truncated": answer.truncated,
    }
    for name in MEANS:
        if (value := getattr(prediction.score, name)) is not None:
            row[name] = value
    for name in ("log_likelihoods", "end_log_likelihoods"):
        if (values := getattr(answer, name)) is not None:
            row[name] = dict(zip(example.choices or [], values, strict=True))
    return row
