"""How an adapter did, for its card: a table with intervals and verdicts, and the same for the hub's index."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.core.markdown import Column, plain, table
from medtune.evaluate.models import BASE, LOOKUP, NAMES, OPPONENTS, SHOTS, TUNED
from medtune.evaluate.page.words import NOTHING, difference, interval, verdict_sentence, with_interval

Figures = Mapping[str, Any]
HALVES = {
    "near_relative": "with a near relative in training",
    "no_near_relative": "without one",
}
"""The strata, by their keys in metrics/details.json."""
MOST_KINDS = 20
"""Kinds that have rows of their own; a card is read by people."""
HUB_METRICS = {"accuracy": "exact_match", "token_f1": "f1", "chrf": "chrf"}
METRIC_NAMES = {
    "accuracy": "exact answers (share)",
    "token_f1": "token-F1 (0 to 1)",
    "chrf": "chrF (0 to 1)",
}
TITLE = "LoRA adapter for medical questions"
_DIGITS = 4


@dataclass(frozen=True)
class Scope:
    """Some of the test questions: their figures by model, and the tuned model's comparisons by opponent."""

    label: str
    config: str | None
    models: Mapping[str, Figures]
    comparisons: Mapping[str, Figures]


def results(details: Mapping[str, Any], near: float) -> list[str]:
    """Paragraphs of Markdown from metrics/details.json; `near` is evaluate.near_relative."""
    scopes = list(_scopes(details))
    left_out = len(details["kinds"]) - MOST_KINDS
    more = [f"{left_out} more kinds are in `metrics/details.json`."] if left_out > 0 else []
    return [
        "Exact answers to the test questions, whose groups stand in no other split. Brackets are 95% "
        "intervals over groups of questions; verdicts by kind are corrected for the number of kinds. The "
        "untuned model was asked with the same prompt. Lookups answer from the training questions without a "
        "model; the best is the best by kind on these very questions, which favours it. A near relative is a "
        "training question of the kind with "
        f"{near:.0%} or more of its character 4-grams in common.",
        table(_columns(scopes)),
        *more,
        " ".join(_verdicts(details)),
        *_texts(details["all"]),
    ]


def model_index(details: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same for programs: the `model-index` of the hub's front matter."""
    found = [_result(scope, sources) for scope in _scopes(details) if scope.config is not None]
    return [{"name": TITLE, "results": [_result(_all(details), sources), *found]}]


def measured(details: Mapping[str, Any]) -> list[str]:
    """The metrics that there is a value of, by their names on the hub."""
    return [name for metric, name in HUB_METRICS.items() if metric in details["all"][TUNED]]


def _all(details: Mapping[str, Any]) -> Scope:
    return Scope("all", None, details["all"], _compared(details["comparisons"]))


def _scopes(details: Mapping[str, Any]) -> Iterator[Scope]:
    """All questions, these by near relatives, then each kind and it by near relatives: the largest kinds."""
    yield _all(details)
    for half, label in HALVES.items():
        part = details[half]
        if TUNED in part["all"]:
            yield Scope(f"... {label}", half, part["all"], _compared(part["comparisons"]))
    kinds = details["kinds"]
    for kind in sorted(kinds, key=lambda name: -kinds[name][TUNED]["n"])[:MOST_KINDS]:
        yield Scope(plain(kind), f"kind={kind}", kinds[kind], _compared(details["comparisons"], kind))
        for half, label in HALVES.items():
            part = details[half]
            own = part["kinds"].get(kind, {})
            if TUNED in own:
                compared = _compared(part["comparisons"], kind)
                yield Scope(f"... {label}", f"kind={kind}, {half}", own, compared)


def _compared(comparisons: Mapping[str, Any], kind: str | None = None) -> dict[str, Figures]:
    """Exact answers against each opponent that there is."""
    found = {
        other: one["all"] if kind is None else one["kinds"].get(kind, {})
        for other, one in comparisons.items()
        if other in OPPONENTS
    }
    return {other: metrics["accuracy"] for other, metrics in found.items() if "accuracy" in metrics}


def _columns(scopes: Sequence[Scope]) -> list[Column]:
    asked = [name for name in (BASE, SHOTS, LOOKUP, TUNED) if any(name in scope.models for scope in scopes)]
    against = [name for name in OPPONENTS if any(name in scope.comparisons for scope in scopes)]
    columns: list[Column] = [
        ("questions", "<", [scope.label for scope in scopes]),
        ("n", ">", [f"{scope.models[TUNED]['n']:,}" for scope in scopes]),
    ]
    for name in asked:
        cells = [with_interval("accuracy", scope.models.get(name, {})) for scope in scopes]
        columns.append((NAMES[name], ">", cells))
    for name in against:
        cells = [_verdict(scope.comparisons.get(name), scope.models[TUNED]["n"]) for scope in scopes]
        columns.append((f"against {OPPONENTS[name]}", "<", cells))
    return columns


def _verdict(comparison: Figures | None, asked: int) -> str:
    if comparison is None:
        return NOTHING
    part = "" if comparison["n"] == asked else f", on the {comparison['n']:,} that it answers"
    return (
        f"{comparison['verdict']}: {difference('accuracy', comparison)} "
        f"[{interval('accuracy', comparison)}]{part}"
    )


def _verdicts(details: Mapping[str, Any]) -> Iterator[str]:
    asked = details["all"][TUNED]["n"]
    for other, one in _all(details).comparisons.items():
        whom = OPPONENTS[other]
        yield verdict_sentence(one, whom if one["n"] == asked else f"{whom} on {one['n']:,} of the questions")
    if details["too_long"]:
        yield f"{details['too_long']:,} more questions were too long for the model, and not asked."
    if "unquantized" in details:
        same = details["unquantized"]["same_answers"]
        yield f"On the unquantised base {same:.0%} of the answers are the same."


def _texts(models: Mapping[str, Figures]) -> list[str]:
    """The measures of free texts, beside exact answers."""
    said = [
        f"{METRIC_NAMES[metric]}: {', '.join(f'{NAMES[name]} {value}' for name, value in found)}"
        for metric in ("token_f1", "chrf")
        if (
            found := [
                (name, with_interval(metric, models[name]))
                for name in (BASE, LOOKUP, TUNED)
                if metric in models.get(name, {})
            ]
        )
    ]
    return ["Of answers in free text, " + "; ".join(said) + "."] if said else []


def _result(scope: Scope, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An entry of `results`; intervals and verdicts are in `args`, which the hub keeps as they are."""
    return {
        "task": {"type": "text-generation", "name": "Medical questions"},
        "dataset": _dataset(scope, sources),
        "metrics": list(_metrics(scope)),
    }


def _dataset(scope: Scope, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    hub = [source for source in sources.values() if source["origin"] == "hub"]
    only = hub[0] if len(hub) == len(sources) == 1 else None
    found = {
        "type": only["path"] if only else "-".join(sources),
        "name": f"test questions of {only['path'] if only else ', '.join(sources)}",
        "split": "test",
    }
    revision = {"revision": only["revision"]} if only and only["revision"] else {}
    return found | revision | ({"config": scope.config} if scope.config else {})


def _metrics(scope: Scope) -> Iterator[dict[str, Any]]:
    tuned = scope.models[TUNED]
    for metric, kind in HUB_METRICS.items():
        if metric not in tuned:
            continue
        args: dict[str, Any] = {end: round(tuned[f"{metric}_{end}"], _DIGITS) for end in ("low", "high")} | {
            "interval": 0.95
        }
        if metric == "accuracy":
            # Of all questions; the others are of those in free text, which figures do not count.
            args |= {"n": tuned["n"]} | {
                name: round(scope.models[name][metric], _DIGITS) for name in _others(scope)
            }
            args["against"] = {other: _brief(one) for other, one in scope.comparisons.items()}
        yield {
            "type": kind,
            "name": METRIC_NAMES[metric],
            "value": round(tuned[metric], _DIGITS),
            "args": args,
        }


def _others(scope: Scope) -> list[str]:
    return [name for name in OPPONENTS if name in scope.models]


def _brief(comparison: Figures) -> dict[str, Any]:
    shares = {name: round(comparison[name], _DIGITS) for name in ("difference", "low", "high")}
    return {"verdict": comparison["verdict"], "n": comparison["n"]} | shares
