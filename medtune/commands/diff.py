"""`medtune diff A [B]`: is B better than A, question by question, or was it luck?

Both sides are judged anew by the rules that are here (the section `evaluate` and the code), so that a metric
that was mended in between makes no difference.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.commands.revisions import WORKSPACE, read_predictions, read_seeds_of
from medtune.commands.score import judge_given, rules, without_groups
from medtune.commands.tables import as_markdown, as_text, one_line, plain_markdown
from medtune.core.errors import MedtuneError
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.evaluate.alignment import DIFFERING, Alignment, align
from medtune.evaluate.comparison import METRICS, compare
from medtune.evaluate.confusion import by_answer
from medtune.evaluate.params import DiffParams, EvaluateParams
from medtune.evaluate.prediction_files import Given
from medtune.evaluate.predictions import Prediction, by_kind
from medtune.evaluate.scoring import MEANS
from medtune.evaluate.seeds import Seeds, noise_band
from medtune.evaluate.summary import few_answers

EXAMPLES = 5
"""Of each sort that are shown, where not all are asked for."""
TEXT = 200
"""Characters of a text that are shown."""
POINTS = frozenset(["accuracy"])
"""Metrics that are shares of questions: in percent, and differences in points."""
LABELS = {"accuracy": "exact answers", **MEANS, "brier": "Brier score"}
HEADER = ("", "n", "A", "B", "difference", "95% interval", "p", "p (Holm)", "McNemar", "verdict")


@dataclass(frozen=True)
class Diff:
    """Two sides, their predictions for the same questions, and the comparisons by metric and kind."""

    names: tuple[str, str]
    aligned: Alignment
    before: list[Prediction]
    after: list[Prediction]
    comparisons: Mapping[str, Any]
    params: EvaluateParams
    tolerated: DiffParams
    seeds: Seeds | None = None

    @property
    def changed(self) -> tuple[list[int], list[int]]:
        """Numbers of the questions that were gained and that were lost."""
        pairs = list(enumerate(zip(self.before, self.after, strict=True)))
        gained = [number for number, (one, other) in pairs if other.correct and not one.correct]
        return gained, [number for number, (one, other) in pairs if one.correct and not other.correct]

    @property
    def losses(self) -> list[str]:
        """Losses that were shown and that are larger than what `diff.tolerated_loss` allows, in words."""
        return [
            f"{LABELS[metric]}{f' of {kind}' if kind else ''}: {_difference(metric, one)}"
            for kind, metric, one in _each(self.comparisons)
            if one["verdict"] == "worse" and abs(one["difference"]) > self.tolerated.largest(metric)
        ]


def make_diff(
    before: str,
    after: str = WORKSPACE,
    *,
    common: bool = False,
    watch: Callable[[str], None] = lambda _: None,
) -> Diff:
    """Compare the predictions of two revisions, experiments, files, or of the workspace.

    `watch` is told what is being done, as it takes a while.
    """
    names = (before, after)
    sides = _read_side(before, watch), _read_side(after, watch)
    aligned = align(*sides, names, common=common)
    params = rules()
    watch(f"judging {_counted(len(aligned.before), 'question')} of both sides anew")
    one, other = (judge_given(side, params) for side in (aligned.before, aligned.after))
    watch("comparing, with intervals")
    comparisons = compare(one, other, params.seed)
    return Diff(names, aligned, one, other, comparisons, params, _tolerated(), read_seeds_of(*names))


def _read_side(name: str, watch: Callable[[str], None]) -> list[Given]:
    watch(f"reading the predictions of {name}, and whether they are its own")
    return read_predictions(name)


def _tolerated() -> DiffParams:
    content = read_yaml(PARAMS_FILE) if PARAMS_FILE.exists() else {}
    return DiffParams.of(content) if DiffParams.name in content else DiffParams()


def diff_as_json(diff: Diff) -> str:
    """For programs: every comparison, and every question that was gained or lost."""
    gained, lost = diff.changed
    content = {
        "before": diff.names[0],
        "after": diff.names[1],
        "n": len(diff.before),
        "left_out": {
            "only_before": diff.aligned.only[0],
            "only_after": diff.aligned.only[1],
            "differing": diff.aligned.differing,
        },
        "comparisons": diff.comparisons,
        "seeds": [
            {"kind": kind or None, "metric": metric, "band": band, "larger": abs(one["difference"]) > band}
            for kind, metric, one, band in _bands(diff)
        ],
        "gained": [_example(diff, number) for number in gained],
        "lost": [_example(diff, number) for number in lost],
        "worse": diff.losses,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def describe_diff(diff: Diff, *, markdown: bool = False, examples: int | None = EXAMPLES) -> str:
    """For people, on a terminal or as Markdown for a pull request."""
    return "\n".join(_described(diff, as_markdown if markdown else as_text, examples, markdown=markdown))


def _described(diff: Diff, table: Any, examples: int | None, *, markdown: bool) -> Iterator[str]:
    bold = "**" if markdown else ""
    asked = _counted(len(diff.before), "question")
    yield f"{bold}A: {diff.names[0]}, B: {diff.names[1]}{bold}; {asked} in both"
    if diff.aligned.left_out:
        only = diff.aligned.only
        yield (
            f"{_counted(diff.aligned.left_out, 'question')} left out: {only[0]} only in A, "
            f"{only[1]} only in B, {diff.aligned.differing} {DIFFERING}"
        )
    for metric in METRICS:
        if metric.name not in diff.comparisons["all"]:
            continue
        less = "" if metric.more_is_better else " (less is better)"
        yield f"\n{bold}{LABELS[metric.name]}{bold}{less}" + ("\n" if markdown else "")
        yield table(HEADER, list(_rows(diff.comparisons, metric.name)))
    yield ""
    yield _explained(diff.comparisons)
    yield from without_groups(diff.before)
    # Answers and kinds stand in these lines as they are.
    plain = plain_markdown if markdown else str
    yield from map(plain, _few(diff))
    yield from map(plain, _beside_seeds(diff))
    for title, numbers in zip(("gained", "lost"), diff.changed, strict=True):
        yield from _listed(diff, title, numbers, examples, markdown=markdown)


def _each(comparisons: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Kind ("" for all), metric and comparison."""
    for metric, one in comparisons["all"].items():
        yield "", metric, one
    if len(comparisons["kinds"]) > 1:
        for kind, metrics in comparisons["kinds"].items():
            yield from ((kind, metric, one) for metric, one in metrics.items())


def _rows(comparisons: Mapping[str, Any], metric: str) -> Iterator[list[str]]:
    kinds = [(kind, found[metric]) for kind, found in comparisons["kinds"].items() if metric in found]
    total = "all kinds" if "all" in comparisons["kinds"] else "all"
    for name, one in [*(kinds if len(kinds) > 1 else []), (total, comparisons["all"][metric])]:
        verdict = one["verdict"]
        if verdict == "not shown":
            verdict += f" ({_could_have(metric, one)})"
        yield [
            one_line(name),
            str(one["n"]),
            _value(metric, one["before"]),
            _value(metric, one["after"]),
            "unchanged" if one["before"] == one["after"] else _difference(metric, one),
            f"{_signed(metric, one['low'])} to {_signed(metric, one['high'])}",
            *(_p(one[name]) for name in ("p_value", "p_adjusted", "mcnemar_p")),
            verdict,
        ]


def _could_have(metric: str, one: Mapping[str, Any]) -> str:
    if one["smallest"] is None:
        return f"nothing could be, in {_counted(one['groups'], 'group')}"
    return f"{_signed(metric, one['smallest']).lstrip('+')} could have been"


def _explained(comparisons: Mapping[str, Any]) -> str:
    one = comparisons["all"]["accuracy"]
    return (
        f"gained {one['gained']} and lost {one['lost']} of {_counted(one['n'], 'question')} "
        f"in {_counted(one['groups'], 'group')}; "
        "p takes a group as one observation, McNemar's a question; docs/evaluation.md has the words"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _few(diff: Diff) -> Iterator[str]:
    """What each side says to kinds with few answers: saying "yes" to all may leave an accuracy as it is."""
    for (kind, one), (_, other) in zip(by_kind(diff.before), by_kind(diff.after), strict=True):
        before, after = by_answer(one), by_answer(other)
        if before and after and kind not in diff.params.set_kinds:
            yield f"{one_line(kind)}, A: {few_answers(before)}"
            yield f"{one_line(kind)}, B: {few_answers(after)}"


def _bands(diff: Diff) -> Iterator[tuple[str, str, Mapping[str, Any], float]]:
    """Kind, metric, comparison, and what a seed alone does, of whatever that is known of."""
    if diff.seeds is None or diff.aligned.left_out:
        # Its figures are of all questions of a run.
        return
    for kind, metric, one in _each(diff.comparisons):
        spreads = diff.seeds.kinds.get(kind, {}) if kind else diff.seeds.all
        if metric in spreads and (band := noise_band(spreads[metric].values)) is not None:
            yield kind, metric, one, band


def _beside_seeds(diff: Diff) -> Iterator[str]:
    """Whether differences are larger than what another seed makes of the same run."""
    if not any(_bands(diff)):
        return
    seeds = len(diff.seeds.seeds) if diff.seeds else 0
    yield f"\nbeside what the seed alone does ({seeds} seeds, metrics/seeds.json):"
    for kind, metric, one, band in _bands(diff):
        size = "larger" if abs(one["difference"]) > band else "no larger"
        of_kind = f" of {one_line(kind)}" if kind else ""
        yield (
            f"  {LABELS[metric]}{of_kind}: {_difference(metric, one)} is {size} than the "
            f"{_signed(metric, band).lstrip('+')} that two seeds may differ by"
        )


def _value(metric: str, value: float) -> str:
    return f"{100 * value:.1f}%" if metric in POINTS else f"{value:.3f}"


def _signed(metric: str, value: float) -> str:
    return f"{100 * value:+.1f}" if metric in POINTS else f"{value:+.3f}"


def _difference(metric: str, one: Mapping[str, Any]) -> str:
    return _signed(metric, one["difference"]) + (" points" if metric in POINTS else "")


def _example(diff: Diff, number: int) -> dict[str, Any]:
    one, other = diff.before[number], diff.after[number]
    return {
        "id": one.example.id,
        "kind": one.example.kind,
        "question": one.example.question,
        "ground_truth": one.example.answer,
        "before": one.answer.text,
        "after": other.answer.text,
    }


def _listed(
    diff: Diff, title: str, numbers: Sequence[int], most: int | None, *, markdown: bool
) -> Iterator[str]:
    if not numbers:
        return
    shown = numbers[:most]
    rest = f", {len(shown)} of them here (--examples {len(numbers)} or --json: all)" if most else ""
    yield f"\n{title}: {len(numbers)}{rest if len(shown) < len(numbers) else ''}"
    if markdown and shown:
        yield ""
    rows = [[one_line(str(_example(diff, number)[field]), TEXT) for field in FIELDS] for number in shown]
    if markdown and rows:
        yield as_markdown(("id", "question", "right", "A", "B"), rows)
    for name, question, right, before, after in [] if markdown else rows:
        yield f"  {name}  {question}\n    right: {right}\n    A: {before}\n    B: {after}"


FIELDS = ("id", "question", "ground_truth", "before", "after")


def require_no_loss(diff: Diff) -> None:
    """Raise MedtuneError if a loss was shown."""
    if diff.losses:
        raise MedtuneError(f"worse: {'; '.join(diff.losses)}")
