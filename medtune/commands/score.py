"""`medtune score FILE`: anybody's predictions, by the rules and statistics that the pipeline has."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.commands.tables import as_text, one_line
from medtune.commands.text_file import read_file
from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError
from medtune.core.section import PARAMS_FILE
from medtune.evaluate.figures import table
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.prediction_files import Given, read_results
from medtune.evaluate.predictions import Prediction, predict
from medtune.evaluate.scoring import MEANS
from medtune.evaluate.summary import few_answers

MODEL = "predictions"
DEFAULTS = EvaluateParams(seed=7, partial_f1=0.5, choice_rule="sum", near_relative=0.35, set_kinds=[])
"""The rules where no params.yaml is."""
HEADER = ("", "n", "exact", "95% interval", "partial", *MEANS.values())


@dataclass(frozen=True)
class Scored:
    """Judged predictions with their figures, {"all": ..., "kinds": {KIND: ...}}, and what was noticed."""

    predictions: list[Prediction]
    figures: Mapping[str, Any]
    notices: list[str]


def score_file(path: Path) -> Scored:
    """Judge the predictions in a JSONL file, or in a results file of `evaluate`."""
    params = rules()
    predictions = judge_given(read_results(read_file(path), str(path)), params)
    found = table({MODEL: predictions}, params, confused=(MODEL,))
    figures = {
        "all": found["all"][MODEL],
        "kinds": {kind: models[MODEL] for kind, models in found["kinds"].items()},
    }
    notices = [*_notices(predictions), *without_groups(predictions)]
    if not PARAMS_FILE.exists():
        notices.append(f"no {PARAMS_FILE} here: judged by the default rules, no kind as a set")
    return Scored(predictions, figures, notices)


def rules() -> EvaluateParams:
    """How answers are judged in this folder."""
    return EvaluateParams.load() if PARAMS_FILE.exists() else DEFAULTS


def judge_given(given: Sequence[Given], params: EvaluateParams) -> list[Prediction]:
    """Predictions that were read, with their scores."""
    lacking = [
        one
        for one in given
        if one.picks and one.answer.log_likelihoods and not one.answer.end_log_likelihoods
    ]
    if params.choice_rule == "whole" and lacking:
        raise MedtuneError(
            f"params.yaml: evaluate.choice_rule is whole, but '{lacking[0].example.id}' has no "
            "`end_log_likelihoods`: answers of this version of medtune do; take another rule"
        )
    return [predict(one.example, one.answer, params, picks=one.picks) for one in given]


def _lacks_ends(answer: AnswerText) -> bool:
    return answer.log_likelihoods is not None and answer.end_log_likelihoods is None


def score_as_json(scored: Scored) -> str:
    """For programs: the figures, what was noticed, and the verdict on each prediction."""
    rows = [
        {
            "id": one.example.id,
            "kind": one.example.kind,
            "match_type": one.score.match_type,
            **{name: getattr(one.score, name) for name in MEANS},
        }
        for one in scored.predictions
    ]
    content = {**scored.figures, "notices": scored.notices, "results": rows}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def describe_score(scored: Scored) -> str:
    """For people: a line a kind, then what is worth knowing."""
    return "\n".join(_described(scored))


def _described(scored: Scored) -> Iterator[str]:
    kinds = list(scored.figures["kinds"].items())
    total = "all kinds" if "all" in scored.figures["kinds"] else "all"
    rows = [*(kinds if len(kinds) > 1 else []), (total, scored.figures["all"])]
    yield as_text(HEADER, [_row(name, one) for name, one in rows])
    for kind, one in kinds:
        if "choices" in one:
            yield f"{one_line(kind)}: {_choices(one)}"
        if "by_answer" in one:
            yield f"{one_line(kind)}: {few_answers(one['by_answer'])}"
    yield from scored.notices


def _choices(one: Mapping[str, Any]) -> str:
    return (
        f"of {one['choices']} questions with choices {one['accuracy_sum']:.1%} right by the likelihood, "
        f"{one['accuracy_per_character']:.1%} by that per character, {one['chance']:.1%} by chance; "
        f"Brier score {one['brier']:.3f}, calibration error {one['calibration_error']:.3f}"
    )


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    means = [f"{one[metric]:.3f}" if metric in one else "" for metric in MEANS]
    interval = f"{one['accuracy_low']:.1%} to {one['accuracy_high']:.1%}"
    counts = [str(one["n"]), f"{one['accuracy']:.1%}", interval, f"{one['partial_matches'] / one['n']:.1%}"]
    return [one_line(name), *counts, *means]


def _notices(predictions: list[Prediction]) -> Iterator[str]:
    closed = [one for one in predictions if one.example.choices is not None]
    if strange := sum(one.answer.text not in (one.example.choices or []) for one in closed):
        yield f"{strange} of {len(closed)} predictions are none of their `choices`: they count as incorrect"
    if closed and (unknown := sum(one.ballot is None for one in closed)) not in (0, len(closed)):
        yield f"{unknown} of {len(closed)} questions with choices lack `log_likelihoods`: no odds are known"
    if empty := sum(not one.answer.text.strip() for one in predictions):
        yield f"{empty} predictions are empty: they count as incorrect"


def without_groups(predictions: Sequence[Prediction]) -> Iterator[str]:
    """What it means that predictions have no group, if so."""
    alone = sum(one.example.group == one.example.id for one in predictions)
    if 0 < alone < len(predictions):
        yield f"{alone} of {len(predictions)} predictions have no `group`: each of them counts as one"
    elif alone:
        yield "without `group` every question counts as independent: intervals are too narrow if they are not"
