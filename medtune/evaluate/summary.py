"""From judged predictions to the content of the metrics files, and to a few lines for a person."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medtune.core.outputs import write_json
from medtune.evaluate.comparison import compare
from medtune.evaluate.figures import Predictions, accuracy, figures, table
from medtune.evaluate.lookups import LOOKUPS, Relative
from medtune.evaluate.models import BASE, LOOKUP, NAMES, OPPONENTS, SHOTS, TUNED
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import Prediction, by_kind
from medtune.evaluate.statistics import mean


def with_best_lookup(predictions: Predictions) -> dict[str, Sequence[Prediction]]:
    """The same, and for each kind the predictions of its best lookup as those of `lookup`.

    That is the most accurate of those that answer every question of the kind, of equally accurate ones the
    one with the higher token-F1. Chosen on the questions that it is judged by, it is rather too good.
    """
    best: dict[str, Prediction] = {}
    order = [one.example.id for one in predictions[TUNED]]
    for kind, asked in by_kind(predictions[TUNED]):
        answers = [
            [one for one in predictions.get(lookup, ()) if one.example.kind == kind] for lookup in LOOKUPS
        ]
        if rivals := [some for some in answers if len(some) == len(asked)]:
            best |= {one.example.id: one for one in max(rivals, key=_how_good)}
    found = {model: some for model, some in predictions.items() if some}
    return found | ({LOOKUP: [best[name] for name in order if name in best]} if best else {})


def details(
    predictions: Predictions,
    relatives: Sequence[Relative | None],
    unquantized: Sequence[Prediction],
    params: EvaluateParams,
    too_long: int = 0,
) -> dict[str, Any]:
    """The content of `metrics/details.json`: figures with intervals, over all examples and for each kind.

    The same once more for questions with and without a near relative in training (those of `relatives`, in
    the order of the tuned model's), then the comparisons of the tuned model. `unquantized` are the tuned
    model's predictions on the unquantised base: how far do they drift? `too_long` questions were not asked.
    """
    tuned = predictions[TUNED]
    near = {
        one.example.id
        for one, relative in zip(tuned, relatives, strict=True)
        if relative and relative.similarity >= params.near_relative
    }
    found = table(predictions, params, confused=(BASE, TUNED, SHOTS))
    for name, wanted in (("near_relative", True), ("no_near_relative", False)):
        part = {
            model: some
            for model, all_of_them in predictions.items()
            if (some := [one for one in all_of_them if (one.example.id in near) == wanted])
        }
        found[name] = table(part, params) | {"comparisons": _comparisons(part, params.seed)}
    found["comparisons"] = _comparisons(predictions, params.seed)
    found["too_long"] = too_long
    if unquantized:
        pairs = zip(tuned, unquantized, strict=True)
        same = sum(one.answer.text == other.answer.text for one, other in pairs) / len(tuned)
        found["unquantized"] = figures(unquantized, params) | {"same_answers": same}
    return found


def headline(found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `metrics/evaluation.json`, from that of `metrics/details.json`.

    The adapter's share of exact answers in [0, 1] and what it has gained over the untuned model on the same
    questions, with its 95% interval and the verdict.
    """
    tuned = found["all"][TUNED]
    content = {"accuracy": tuned["accuracy"]} | _gain(found["comparisons"][BASE]["all"]["accuracy"])
    return content | ({"token_f1": tuned["token_f1"]} if "token_f1" in tuned else {})


def lookup_headline(found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `metrics/lookup.json`: the best lookup's accuracy, and what the adapter gains over it.

    In the words of `headline`: `dvc metrics show` has both in the same columns. Without lookups empty.
    """
    if LOOKUP not in found["comparisons"]:
        return {}
    over = found["comparisons"][LOOKUP]["all"]["accuracy"]
    return {"accuracy": over["before"]} | _gain(over)


def _gain(comparison: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "gain": comparison["difference"],
        "gain_low": comparison["low"],
        "gain_high": comparison["high"],
        "verdict": comparison["verdict"],
    }


def write_kinds(folder: Path, found: Mapping[str, Any]) -> None:
    """Write the adapter's accuracy of each kind into a file of its own: a row of `dvc metrics show`."""
    shutil.rmtree(folder, ignore_errors=True)
    for kind, models in found["kinds"].items():
        # A kind may be called anything, "yes/no" too.
        write_json(folder / f"{quote(kind, safe=' ')}.json", {"accuracy": models[TUNED]["accuracy"]})


def accuracy_rows(found: Mapping[str, Any]) -> list[list[Any]]:
    """Kind, model, accuracy and its interval, for the plot of all models by kind."""
    return [
        [kind, NAMES[model], *(one[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))]
        for kind, models in found["kinds"].items()
        for model, one in models.items()
        if model != LOOKUP
    ]


def describe(found: Mapping[str, Any]) -> str:
    """The content of `metrics/details.json` for a person to read: a line a kind, then the verdicts."""
    return "\n".join(_described(found))


def _described(found: Mapping[str, Any]) -> Iterator[str]:
    # No dictionary: a kind may be called "all".
    rows = [*found["kinds"].items(), ("all", found["all"])]
    width = max(len(kind) for kind, _ in rows)
    for kind, models in rows:
        yield f"{kind:<{width}}  {_line(models)}"
    for kind, models in found["kinds"].items():
        if few := models[TUNED].get("by_answer"):
            yield f"{kind}: {few_answers(few)}"
    if "unquantized" in found:
        same = found["unquantized"]["same_answers"]
        yield f"on the unquantised base {same:.0%} of the answers are the same"
    if found["too_long"]:
        yield f"left out as too long for the model with an answer: {found['too_long']} of the questions"
    far = found["no_near_relative"]["all"]
    if TUNED in far and "near_relative" in found and TUNED in found["near_relative"]["all"]:
        lookup = f", best lookup {far[LOOKUP]['accuracy']:.1%}" if LOOKUP in far else ""
        yield (
            f"of the {far[TUNED]['n']} questions without a near relative in training "
            f"{far[TUNED]['accuracy']:.1%} exact{lookup}"
        )
    for opponent, comparison in found["comparisons"].items():
        one = comparison["all"]["accuracy"]
        some = (
            "" if one["n"] == found["all"][TUNED]["n"] else f", on the {one['n']} questions that it answers"
        )
        yield f"against {OPPONENTS[opponent]}{some}: {in_words(one)}"


def in_words(comparison: Mapping[str, Any], of: str = "exact answers") -> str:
    """A comparison of shares as a sentence: the verdict, the difference, what could have been shown."""
    difference, low, high = (f"{100 * comparison[name]:+.1f}" for name in ("difference", "low", "high"))
    sentence = f"{comparison['verdict']}, {difference} points of {of}, 95% interval {low} to {high}"
    if comparison["verdict"] != "not shown":
        return sentence
    if comparison["smallest"] is None:
        return f"{sentence}; groups of questions are too few ({comparison['groups']}) to show any"
    return f"{sentence}; these questions could have shown {100 * comparison['smallest']:.1f} points"


def few_answers(few: Mapping[str, Any]) -> str:
    """What a model says to a kind with few answers, and what it should have said."""
    labels = [*few["labels"], "something else"]
    said = [sum(column) for column in zip(*few["confusion"], strict=True)]
    counts = ", ".join(f"{label} {count}" for label, count in zip(labels, said, strict=True) if count)
    right = ", ".join(
        f"{label} {sum(row)}" for label, row in zip(few["labels"], few["confusion"], strict=True)
    )
    return f"said {counts}; right are {right}; macro-F1 {few['macro_f1']:.2f}"


def _line(models: Mapping[str, Any]) -> str:
    tuned = models[TUNED]
    others = ", ".join(
        f"{NAMES[model]} {one['exact_matches']}"
        for model, one in models.items()
        if model not in (TUNED, LOOKUP)
    )
    line = f"exact {tuned['exact_matches']} of {tuned['n']} ({others})"
    if "token_f1" in tuned and "token_f1" in models.get(BASE, {}):
        line += f", token-F1 {tuned['token_f1']:.2f} (untuned {models[BASE]['token_f1']:.2f})"
    return line


def _how_good(some: Sequence[Prediction]) -> tuple[float, float]:
    return accuracy(some), mean([one.score.token_f1 or 0.0 for one in some])


def _comparisons(predictions: Predictions, seed: int) -> dict[str, Any]:
    """The tuned model against each of `OPPONENTS`, on the questions that it has an answer to."""
    return {
        opponent: compare(
            predictions[opponent], _same_questions(predictions[TUNED], predictions[opponent]), seed
        )
        for opponent in OPPONENTS
        if opponent in predictions
    }


def _same_questions(some: Sequence[Prediction], others: Sequence[Prediction]) -> list[Prediction]:
    wanted = {one.example.id for one in others}
    return [one for one in some if one.example.id in wanted]
