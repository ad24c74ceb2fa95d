"""An evaluation to report on: three kinds of question, one of them with choices and one of sets."""

from collections.abc import Mapping, Sequence
from typing import Any

from medtune.core.answers import AnswerText
from medtune.core.examples import Example
from medtune.evaluate.lookups import Relative
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import Prediction, by_kind, judge
from medtune.evaluate.report import ADAPTER, report
from tests.conftest import example

MODELS = ("base", "tuned", "most_frequent", "nearest")
KINDS = ("definition", "organ_system", "yes/no")
SYSTEMS = ("eye", "ear", "limbs", "skin")
NEAR = 0.5
PARAMS = EvaluateParams(
    seed=1, partial_f1=0.5, choice_rule="sum", near_relative=NEAR, set_kinds=["organ_system"]
)
LOSS = [
    {"step": str(step), "examples": examples, "loss": str(4 / (1 + step / 10) + offset)}
    for examples, offset, every in (("training", 0.0, 5), ("validation", 0.1, 25))
    for step in range(every, 101, every)
]
RECORD = {
    "inputs": {ADAPTER: "662cfd1dcfe8282dcc634a56f1345ba7e0c2506c3b85508699df8d773f430a81"},
    "parameters": {"prompt": {"system": "Answer in short."}, "finetune": {"lora": {"r": 16}, "epochs": 1.0}},
    "base_model": {"source": "package:model==1/model.gguf", "revision": None},
}


def questions(count: int) -> list[Example]:
    """As many of each kind, one after the other."""
    return [_question(number, KINDS[number % len(KINDS)]) for number in range(count)]


def _question(number: int, kind: str) -> Example:
    system = SYSTEMS[number % len(SYSTEMS)]
    fields: dict[str, Any] = {
        "definition": {"question": f"What is finding {number}?", "answer": f"A finding of the {system}."},
        "organ_system": {
            "question": f"Which systems does finding {number} affect?",
            "answer": f"{system}; bone",
        },
        "yes/no": {
            "question": f"Is finding {number} rare?",
            "answer": "yes" if number % 2 else "no",
            "choices": ["yes", "no"],
        },
    }
    return example(id=f"F:{number}/{kind}", kind=kind, group=f"F:{number}", **fields[kind])


def _answer(one: Example, number: int, model: str) -> AnswerText:
    """Of four questions the base answers one right, the tuned model two more and not that one."""
    rights = {"base": (0,), "tuned": (1, 2), "nearest": (0, 1)}.get(model, ())
    is_right = number // len(KINDS) % 4 in rights
    if one.choices is None:
        wrong = "eye; nose" if one.kind == "organ_system" else "Something else, in more words than that."
        return AnswerText(text=one.answer if is_right else wrong, tokens=5, truncated=model == "base")
    likely = one.answer if is_right else next(choice for choice in one.choices if choice != one.answer)
    odds = [-0.1 - number % 7 / 10 if choice == likely else -2.5 for choice in one.choices]
    known = odds if model in ("base", "tuned") else None
    return AnswerText(text=likely, tokens=1, truncated=False, log_likelihoods=known)


def predictions_of(asked: Sequence[Example], **texts: str) -> dict[str, list[Prediction]]:
    """By model; a model named in `texts` gives that text to every question."""
    answers: dict[str, dict[str, AnswerText]] = {
        model: {one.id: _answer(one, number, model) for number, one in enumerate(asked)} for model in MODELS
    }
    for model, text in texts.items():
        answers[model] = {one.id: AnswerText(text=text, tokens=1, truncated=False) for one in asked}
    kinds = {one.kind for one in asked}
    params = PARAMS.model_copy(update={"set_kinds": [kind for kind in PARAMS.set_kinds if kind in kinds]})
    return {model: judge(asked, given, params) for model, given in answers.items()}


def relatives_of(asked: Sequence[Example]) -> list[Relative | None]:
    """Of every third question none, of the others near and far ones."""
    return [
        Relative(f"T:{number}", f"A training question like {number}?", (0.7, 0.2)[number % 2])
        if number % 3
        else None
        for number in range(len(asked))
    ]


def details_of(predictions: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    """In the form of metrics/details.json, with intervals and p values that are made up."""
    whole = _halves(predictions)
    for kind, models in whole["kinds"].items():
        for model in models.keys() & {"base", "tuned", "shots"}:
            models[model] |= _classes(kind)
    return {
        **whole,
        "near_relative": _halves(predictions),
        "no_near_relative": _halves(predictions),
        "comparisons": {other: _compared(predictions, before) for other, before in
                        (("base", "base"), ("lookup", "nearest"))},
    }  # fmt: skip


def _halves(predictions: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    kinds = {model: dict(by_kind(found)) for model, found in predictions.items()}
    return {
        "all": {model: _figures(found) for model, found in predictions.items()},
        "kinds": {
            kind: {model: _figures(kinds[model][kind]) for model in predictions}
            for kind in next(iter(kinds.values()))
        },
    }


def _figures(found: Sequence[Prediction]) -> dict[str, Any]:
    matches = [one.score.match_type for one in found]
    share = matches.count("exact") / len(found)
    figures: dict[str, Any] = {
        "n": len(found),
        "accuracy": share,
        "accuracy_low": max(share - 0.08, 0),
        "accuracy_high": min(share + 0.08, 1),
        "exact_matches": matches.count("exact"),
        "partial_matches": matches.count("partial"),
        "incorrect": matches.count("incorrect"),
        "truncated": sum(one.answer.truncated for one in found) / len(found),
    }
    if known := [one.score.token_f1 for one in found if one.score.token_f1 is not None]:
        mean = sum(known) / len(known)
        figures |= {"token_f1": mean, "token_f1_low": mean * 0.9, "token_f1_high": min(1, mean * 1.1)}
    if all(one.ballot for one in found):
        figures |= {
            "choices": len(found),
            "chance": 0.5,
            "accuracy_sum": share,
            "accuracy_per_character": share,
            "brier": 0.4,
            "calibration_error": 0.12,
            "right_positions": [2, 2],
            "picked_positions": [1, 3],
        }
    return figures


def _classes(kind: str) -> dict[str, Any]:
    labels = {"organ_system": [*SYSTEMS, "bone"], "yes/no": ["no", "yes"]}.get(kind)
    if labels is None:
        return {}
    size = len(labels)
    rows = [[7 if row == column else (row + column) % 3 for column in range(size + 1)] for row in range(size)]
    found = {
        "labels": labels,
        "confusion": rows,
        "recall": [row[number] / sum(row) for number, row in enumerate(rows)],
        "macro_f1": 0.61,
        "most_frequent": 0.3,
    }
    return {"by_member" if kind == "organ_system" else "by_answer": found}


def _compared(predictions: Mapping[str, Sequence[Prediction]], before: str) -> dict[str, Any]:
    one, other = (_halves({"it": predictions[model]}) for model in ("tuned", before))
    verdict = "better" if before == "base" else "not shown"
    kinds = {
        kind: _comparison(one["kinds"][kind]["it"], other["kinds"][kind]["it"], verdict)
        for kind in one["kinds"]
    }
    return {"all": _comparison(one["all"]["it"], other["all"]["it"], verdict), "kinds": kinds}


def _comparison(after: Mapping[str, Any], before: Mapping[str, Any], verdict: str) -> dict[str, Any]:
    return {
        measure: {
            "n": after["n"],
            "groups": after["n"],
            "before": before[measure],
            "after": after[measure],
            "difference": after[measure] - before[measure],
            "low": after[measure] - before[measure] - 0.05,
            "high": after[measure] - before[measure] + 0.05,
            "p_value": 0.0001 if verdict == "better" else 0.21,
            "p_adjusted": 0.0002 if verdict == "better" else 0.42,
            "mcnemar_p": None,
            "verdict": verdict,
            "smallest": 0.06,
            "gained": 12,
            "lost": 3,
        }
        for measure in ("accuracy", "token_f1")
        if measure in after and measure in before
    }


def report_of(asked: Sequence[Example], times: int = 1, **texts: str) -> str:
    """The page for these questions, each asked so many times."""
    found = predictions_of(asked, **texts)
    repeated = {model: list(one) * times for model, one in found.items()}
    return report(repeated, relatives_of(asked) * times, details_of(found), LOSS, RECORD, NEAR)
