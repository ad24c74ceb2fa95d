"""From answers to verdicts, and from verdicts to the figures of the metrics files."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError, nearest
from medtune.core.examples import Example
from medtune.core.outputs import write_json
from medtune.evaluate.choices import Ballot, choice_figures, pick
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.scoring import RANK, Score, score, score_choice
from medtune.evaluate.statistics import bootstrap_interval, mean, share_interval

MODELS = ("base", "tuned")


@dataclass(frozen=True)
class Prediction:
    """An answer to an example, and its score."""

    example: Example
    answer: AnswerText
    score: Score

    @property
    def correct(self) -> bool:
        """Whether it counts for the accuracy."""
        return self.score.match_type == "exact"


def judge(
    examples: Sequence[Example], answers: Mapping[str, AnswerText], params: EvaluateParams
) -> list[Prediction]:
    """Score the answer to each example."""
    kinds = sorted({example.kind for example in examples})
    if unknown := sorted(set(params.set_kinds) - set(kinds)):
        raise MedtuneError(
            f"params.yaml: evaluate.set_kinds has '{unknown[0]}', a kind that was not asked; "
            f"{nearest(unknown[0], kinds)}"
        )
    return [_predict(example, answers[example.id], params) for example in examples]


def headline(
    base: Sequence[Prediction], tuned: Sequence[Prediction], params: EvaluateParams
) -> dict[str, float]:
    """The content of `metrics/evaluation.json`: the adapter, the untuned model, and what was gained.

    Shares of exact answers in [0, 1]; the gain is their difference on the same questions, with a 95% interval
    by a paired bootstrap over groups of questions.
    """
    gains = [float(one.correct) - float(other.correct) for one, other in zip(tuned, base, strict=True)]
    groups = [one.example.group for one in tuned]
    low, high = bootstrap_interval(gains, groups, params.seed, scale=(-1.0, 1.0))
    return {
        "accuracy": _accuracy(tuned),
        "base": _accuracy(base),
        "gain": mean(gains),
        "gain_low": low,
        "gain_high": high,
    } | _token_f1(tuned)


def details(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    unquantized: Sequence[Prediction] | None,
    params: EvaluateParams,
) -> dict[str, Any]:
    """The content of `metrics/details.json`: figures with intervals, over all examples and for each kind.

    `unquantized` are the predictions of the tuned model on the unquantised base: how far do they drift?
    """
    kinds = sorted({prediction.example.kind for prediction in tuned})
    found: dict[str, Any] = {
        "all": _both(base, tuned, params.seed),
        "kinds": {kind: _both(_of_kind(base, kind), _of_kind(tuned, kind), params.seed) for kind in kinds},
    }
    if unquantized is not None:
        pairs = zip(tuned, unquantized, strict=True)
        same = sum(one.answer.text == other.answer.text for one, other in pairs) / len(tuned)
        found["unquantized"] = _figures(unquantized, params.seed) | {"same_answers": same}
    return found


def results(
    predictions: Sequence[Prediction],
    indices: Sequence[int],
    unquantized: Sequence[Prediction] | None = None,
) -> dict[str, Any]:
    """The content of `metrics/evaluation_results.json`: every prediction beside its reference."""
    matches = Counter(prediction.score.match_type for prediction in predictions)
    rows = [_row(prediction) for prediction in predictions]
    for row, other in zip(rows, unquantized or (), strict=unquantized is not None):
        row["unquantized"] = {"prediction": other.answer.text, "truncated": other.answer.truncated}
    return {
        "accuracy": _accuracy(predictions),
        "exact_matches": matches["exact"],
        "partial_matches": matches["partial"],
        "incorrect": matches["incorrect"],
        "selected_indices": list(indices),
        "results": rows,
    }


def write_kinds(folder: Path, by_kind: Mapping[str, Any]) -> None:
    """Write the adapter's accuracy of each kind into a file of its own: a row of `dvc metrics show`."""
    shutil.rmtree(folder, ignore_errors=True)
    for kind, figures in by_kind["kinds"].items():
        # A kind may be called anything, "yes/no" too.
        write_json(folder / f"{quote(kind, safe=' ')}.json", {"accuracy": figures["tuned"]["accuracy"]})


def accuracy_rows(by_kind: Mapping[str, Any]) -> list[list[Any]]:
    """Kind, model, accuracy and its interval, for the plot of both models by kind."""
    return [
        [kind, model, *(figures[model][name] for name in ("accuracy", "accuracy_low", "accuracy_high"))]
        for kind, figures in by_kind["kinds"].items()
        for model in MODELS
    ]


def describe(figures: Mapping[str, float], by_kind: Mapping[str, Any]) -> str:
    """The figures of an evaluation for a person to read: a line a kind, then what was gained."""
    return "\n".join(_described(figures, by_kind))


def _described(figures: Mapping[str, float], by_kind: Mapping[str, Any]) -> Iterator[str]:
    # No dictionary: a kind may be called "all".
    rows = [*by_kind["kinds"].items(), ("all", by_kind["all"])]
    width = max(len(kind) for kind, _ in rows)
    for kind, both in rows:
        base, tuned = (both[model] for model in MODELS)
        exact = f"exact {tuned['exact_matches']} of {tuned['n']} (base {base['exact_matches']})"
        if "token_f1" in tuned:
            exact += f", token-F1 {tuned['token_f1']:.2f} (base {base['token_f1']:.2f})"
        yield f"{kind:<{width}}  {exact}"
    if "unquantized" in by_kind:
        same = by_kind["unquantized"]["same_answers"]
        yield f"on the unquantised base {same:.0%} of the answers are the same"
    gain, low, high = (f"{100 * figures[name]:+.1f}" for name in ("gain", "gain_low", "gain_high"))
    yield f"gain in accuracy {gain} percentage points, 95% interval {low} to {high}"


def _predict(example: Example, answer: AnswerText, params: EvaluateParams) -> Prediction:
    if example.choices is not None and answer.log_likelihoods is not None:
        picked = example.choices[pick(example.choices, answer.log_likelihoods, params.choice_rule)]
        answer = answer.model_copy(update={"text": picked})
        return Prediction(example, answer, score_choice(picked, example.answer))
    is_set = example.kind in params.set_kinds
    scores = [
        score(answer.text, right, is_set=is_set, partial_f1=params.partial_f1)
        for right in example.right_answers
    ]
    return Prediction(example, answer, max(scores, key=lambda one: (RANK[one.match_type], one.token_f1)))


def _row(prediction: Prediction) -> dict[str, Any]:
    example, answer = prediction.example, prediction.answer
    row: dict[str, Any] = {
        "id": example.id,
        "kind": example.kind,
        "group": example.group,
        "question": example.question,
        "ground_truth": example.answer,
        **({"answers": example.answers} if example.answers else {}),
        "prediction": answer.text,
        "correct": prediction.correct,
        "match_type": prediction.score.match_type,
        "truncated": answer.truncated,
    }
    if prediction.score.token_f1 is not None:
        row["token_f1"] = prediction.score.token_f1
    if answer.log_likelihoods is not None:
        row["log_likelihoods"] = dict(zip(example.choices or [], answer.log_likelihoods, strict=True))
    return row


def _of_kind(predictions: Sequence[Prediction], kind: str) -> list[Prediction]:
    return [prediction for prediction in predictions if prediction.example.kind == kind]


def _both(base: Sequence[Prediction], tuned: Sequence[Prediction], seed: int) -> dict[str, Any]:
    return {model: _figures(one, seed) for model, one in zip(MODELS, (base, tuned), strict=True)}


def _accuracy(predictions: Sequence[Prediction]) -> float:
    return sum(prediction.correct for prediction in predictions) / len(predictions)


def _figures(predictions: Sequence[Prediction], seed: int) -> dict[str, Any]:
    n = len(predictions)
    matches = Counter(prediction.score.match_type for prediction in predictions)
    accuracy_low, accuracy_high = share_interval(
        [one.correct for one in predictions], [one.example.group for one in predictions]
    )
    worded = [one for one in predictions if one.score.token_f1 is not None]
    found: dict[str, Any] = {
        "n": n,
        "accuracy": matches["exact"] / n,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "exact_matches": matches["exact"],
        "partial_matches": matches["partial"],
        "incorrect": matches["incorrect"],
        "truncated": sum(prediction.answer.truncated for prediction in predictions) / n,
    }
    if worded:
        found |= _token_f1(worded)
        found["token_f1_low"], found["token_f1_high"] = bootstrap_interval(
            [one.score.token_f1 or 0.0 for one in worded], [one.example.group for one in worded], seed
        )
    ballots = [ballot for one in predictions if (ballot := _ballot(one)) is not None]
    return found | (choice_figures(ballots) if ballots else {})


def _ballot(prediction: Prediction) -> Ballot | None:
    example, answer = prediction.example, prediction.answer
    if example.choices is None or answer.log_likelihoods is None:
        return None
    return Ballot(example.choices, answer.log_likelihoods, example.choices.index(example.answer))


def _token_f1(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The mean over answers in words; of choices alone there is none."""
    known = [one.score.token_f1 for one in predictions if one.score.token_f1 is not None]
    return {"token_f1": mean(known)} if known else {}
