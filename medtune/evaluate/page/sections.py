"""The sections of the page, each from a part of the metrics. One that there is nothing for is left out."""

import json
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medtune.evaluate.choices import BINS
from medtune.evaluate.models import NAMES, OPPONENTS
from medtune.evaluate.page import charts
from medtune.evaluate.page.parts import Cell, Chart, Section, Series, Table, series_of
from medtune.evaluate.page.words import (
    MEASURES,
    NOTHING,
    chip,
    decimal,
    difference,
    interval,
    measure_name,
    p_value,
    percent,
    smallest,
    value_of,
    with_interval,
)
from medtune.evaluate.predictions import Prediction
from medtune.evaluate.scoring import MEANS

Figures = Mapping[str, Any]
Scope = tuple[str, Mapping[str, Figures]]
"""What questions: all or a kind; and the figures of each model on them."""
HALVES = {"near_relative": "with a near relative", "no_near_relative": "without one"}
COMPARED = (
    "verdict", "other", "tuned", "difference", "95% interval", "p", "p, adjusted", "gained", "lost",
    "could have shown",
)  # fmt: skip
"""What a comparison says; the other side is named in the table's title."""
MATCHES = {"exact_matches": "exact", "partial_matches": "partial", "incorrect": "incorrect"}
SHARES = ("chance", "accuracy_sum", "accuracy_per_character", "accuracy_whole")
LONGEST = 0.99
"""The share of answers that a histogram of lengths shows in full; longer ones share its last bin."""
MOST_BINS = 40


def sections(
    predictions: Mapping[str, Sequence[Prediction]],
    details: Mapping[str, Any],
    loss: Sequence[Mapping[str, str]],
    record: Mapping[str, Any],
    near: float,
) -> Iterator[Section]:
    """Those that there is something for, in the order of the page, without verdict and examples."""
    models = list(predictions)
    found = (
        _figures(details, models),
        _comparisons(details.get("comparisons", {})),
        _relatives(details, models, near),
        _confusion(details["kinds"], models),
        _calibration(predictions, details, models),
        _lengths(predictions),
        _loss(loss),
        _record(record),
    )
    return (section for section in found if section.parts)


def scopes(details: Mapping[str, Any]) -> list[Scope]:
    """All questions, then those of each kind."""
    kinds = details.get("kinds", {})
    return [(label, details["all"] if kind is None else kinds[kind]) for label, kind in _labels(kinds)]


def _labels(kinds: Collection[str]) -> list[tuple[str, str | None]]:
    """A label for all kinds together (None), which no kind has, then each kind as it is called."""
    total = "all kinds"
    while total in kinds:
        total += " together"
    # With one kind there is nothing to sum up.
    return [*([] if len(kinds) == 1 else [(total, None)]), *((kind, kind) for kind in kinds)]


def _comparisons(comparisons: Mapping[str, Any]) -> Section:
    tables = []
    for other, found in comparisons.items():
        rows: list[list[Cell]] = [
            [kind, measure_name(measure), str(one["n"]), *_comparison(measure, one)]
            for kind, measures in scopes(found)
            for measure, one in measures.items()
        ]
        before = OPPONENTS[other]
        columns = ["questions", "measure", "n", *COMPARED]
        if rows:
            tables.append(Table(f"The tuned model against {before}", columns, rows, heads=2))
    return Section(
        "comparisons",
        "What is shown and what is not",
        [
            "Differences on the same questions. The intervals and p values take questions of one group as "
            "dependent; the adjusted p allows for the number of comparisons made. “Could have shown” is "
            "the smallest difference that this many questions would probably have revealed: of a smaller "
            "one, “not shown” says nothing. Gained are answers that became right, lost the opposite.",
        ],
        tables,
    )


def _comparison(measure: str, one: Mapping[str, Any]) -> list[Cell]:
    return [
        chip(one["verdict"]),
        value_of(measure, one["before"]),
        value_of(measure, one["after"]),
        difference(measure, one),
        interval(measure, one),
        p_value(one.get("p_value")),
        p_value(one.get("p_adjusted")),
        *(NOTHING if one.get(name) is None else str(one[name]) for name in ("gained", "lost")),
        smallest(measure, one),
    ]


def _figures(details: Mapping[str, Any], models: Sequence[str]) -> Section:
    found = scopes(details)
    return Section(
        "figures",
        "By kind of question",
        ["Lines and brackets are 95% intervals over groups of questions.", *_drift(details)],
        [*_interval_charts(found, models), _figures_table(found, models)],
    )


def _drift(details: Mapping[str, Any]) -> list[str]:
    """How the adapter does on the unquantised base, if that was asked."""
    if "unquantized" not in details:
        return []
    figures = details["unquantized"]
    same = (
        f"; {percent(figures['same_answers'])} of its answers are the same"
        if "same_answers" in figures
        else ""
    )
    return [
        f"On the unquantised base the adapter has {with_interval('accuracy', figures)} exact answers{same}."
    ]


def _interval_charts(found: Sequence[Scope], models: Sequence[str]) -> Iterator[Chart]:
    for measure in MEASURES:
        values = [
            {
                "row": label,
                "model": NAMES[model],
                "value": figures[model][measure],
                "low": figures[model][f"{measure}_low"],
                "high": figures[model][f"{measure}_high"],
                "n": figures[model]["n"],
            }
            for label, figures in found
            for model in models
            if f"{measure}_low" in figures.get(model, {})
        ]
        if values:
            title = measure_name(measure)
            shown = {value["model"] for value in values}
            legend = series_of([model for model in models if NAMES[model] in shown])
            rows = list(dict.fromkeys(value["row"] for value in values))
            text = (
                f"{title} of {', '.join(one.name for one in legend)}; the table below has the same figures."
            )
            yield Chart(title.capitalize() if title.islower() else title,
                        charts.intervals(values, rows, legend, measure, text), legend)  # fmt: skip


def _figures_table(found: Sequence[Scope], models: Sequence[str]) -> Table:
    present = [(label, name, figures[name]) for label, figures in found for name in models if name in figures]
    measures = [name for name in MEANS if any(name in one for _, _, one in present)]
    rows = [
        [
            label,
            NAMES[name],
            str(one["n"]),
            with_interval("accuracy", one),
            *(with_interval(measure, one) for measure in measures),
            *(str(one[count]) for count in MATCHES),
            percent(one["truncated"]),
        ]
        for label, name, one in present
    ]
    names = ["questions", "answers by", "n", *map(measure_name, ["accuracy", *measures])]
    return Table("All figures", [*names, *MATCHES.values(), "cut off"], rows, heads=2)


def _relatives(details: Mapping[str, Any], models: Sequence[str], near: float) -> Section:
    halves = {words: details.get(key, {}) for key, words in HALVES.items()}
    charted = [(words, half["all"]) for words, half in halves.items() if half.get("all")]
    parts: list[Table | Chart] = []
    if charted:
        columns = [
            "questions",
            "answers by",
            *(text for words in halves for text in ("n", f"exact, {words}")),
        ]
        rows = [
            [
                label,
                NAMES[model],
                *(cell for half in halves.values() for cell in _half_cells(half, kind, model)),
            ]
            for label, kind in _labels(details["kinds"])
            for model in models
        ]
        table = Table(
            "Exact answers by kind and relative", columns, [row for row in rows if _says(row)], heads=2
        )
        parts = [*list(_interval_charts(charted, models))[:1], table, *_half_comparisons(details)]
    return Section(
        "relatives",
        "With and without a near relative in training",
        [
            "No group of questions stands in both training and test. Still, some test questions have a "
            f"training question that reads much like them (similarity of {decimal(near)} or more, by shared "
            "runs of letters). A model that learned more than wording does well without one too."
        ],
        parts,
    )


def _says(row: Sequence[str]) -> bool:
    """Whether any half has a figure: a lookup may have no answer to a kind."""
    return any(cell != NOTHING for cell in row[2:])


def _half_comparisons(details: Mapping[str, Any]) -> Iterator[Table]:
    """The tuned model against the best lookup, once for each half."""
    for key, words in HALVES.items():
        found = details.get(key, {}).get("comparisons", {}).get("lookup")
        if not found or not found["all"]:
            continue
        rows: list[list[Cell]] = [
            [label, str(one["n"]), *_comparison("accuracy", one)]
            for label, measures in scopes(found)
            if (one := measures.get("accuracy"))
        ]
        title = f"Exact answers against {OPPONENTS['lookup']}, {words}"
        yield Table(title, ["questions", "n", *COMPARED], rows)


def _half_cells(half: Mapping[str, Any], kind: str | None, model: str) -> tuple[str, str]:
    """Number of questions and share of exact answers, of a kind or of all; dashes where there are none."""
    figures = half.get("all") if kind is None else half.get("kinds", {}).get(kind)
    one = (figures or {}).get(model, {})
    return str(one.get("n", NOTHING)), with_interval("accuracy", one)


def _loss(loss: Sequence[Mapping[str, str]]) -> Section:
    values = [
        {"step": float(row["step"]), "examples": row["examples"], "loss": float(row["loss"])}
        for row in loss
        if row["loss"]
    ]
    colors = {"training": ("--base", "circle"), "validation": ("--tuned", "square")}
    names = [name for name in colors if any(value["examples"] == name for value in values)]
    legend = [Series(name, f"var({colors[name][0]})", colors[name][1]) for name in names]
    text = f"Loss over training steps, of {' and '.join(names)} examples."
    chart = Chart("Loss", charts.losses(values, legend, text), legend)
    return Section("loss", "Training", [], [chart] if values else [])


def _confusion(kinds: Mapping[str, Mapping[str, Figures]], models: Sequence[str]) -> Section:
    parts: list[Table | Chart] = []
    for kind, figures in kinds.items():
        for key, of in (("by_answer", "answers"), ("by_member", "members of the answer")):
            known = {model: figures[model][key] for model in models if key in figures.get(model, {})}
            if known:
                parts += [*_matrices(kind, of, known), _recalls(kind, of, known)]
    return Section(
        "confusion",
        "Which answers are taken for which",
        [
            "A row is a right answer, a column what was given in its place; the stronger a cell, the larger "
            "its share of the row. Right answers lie on the diagonal; what is no label is “(other)”."
        ],
        parts,
    )


def _matrices(kind: str, of: str, known: Mapping[str, Figures]) -> Iterator[Chart]:
    for model in (name for name in ("tuned", "base", "shots") if name in known):
        labels, confusion = known[model]["labels"], known[model]["confusion"]
        values = [
            {"right": right, "given": given, "count": count, "share": count / sum(row)}
            for right, row in zip(labels, confusion, strict=True)
            for given, count in zip([*labels, "(other)"], row, strict=True)
            if count
        ]
        title = f"{kind}, {of}: {NAMES[model]}"
        text = f"Confusion matrix of {title}; the table below has the share found of each."
        yield Chart(
            title,
            charts.confusion(values, labels, [*labels, "(other)"], text),
            form="own",
            folded=model != "tuned",
        )


def _recalls(kind: str, of: str, known: Mapping[str, Figures]) -> Table:
    first = next(iter(known.values()))
    rows = [
        [
            label,
            str(sum(first["confusion"][number])),
            *(percent(one["recall"][number]) for one in known.values()),
        ]
        for number, label in enumerate(first["labels"])
    ]
    rows.append(["macro-F1", NOTHING, *(decimal(one.get("macro_f1")) for one in known.values())])
    rows.append(
        ["always the most frequent", NOTHING, *(percent(one.get("most_frequent")) for one in known.values())]
    )
    columns = [of, "n", *(f"found by {NAMES[model]}" for model in known)]
    return Table(f"{kind}, {of}: share found of each", columns, rows, folded=True)


def _calibration(
    predictions: Mapping[str, Sequence[Prediction]], details: Mapping[str, Any], models: Sequence[str]
) -> Section:
    values = [value for model in models for value in _bins(model, predictions[model])]
    shown = {value["model"] for value in values}
    legend = series_of([model for model in models if NAMES[model] in shown])
    parts: list[Table | Chart] = []
    if values:
        text = "Share of right picks over their probability; the dashed line is perfect calibration."
        parts.append(
            Chart("Reliability of picks", charts.reliability(values, legend, text), legend, "square")
        )
    rows = [
        [label, NAMES[model], *_choice_cells(figures[model])]
        for label, figures in scopes(details)
        for model in models
        if "choices" in figures.get(model, {})
    ]
    if rows:
        columns = [
            "questions", "answers by", "n", "chance", "right, by sum", "per character", "as a whole",
            "Brier score", "calibration error", "right answer stands at", "picked",
        ]  # fmt: skip
        parts.append(Table("Questions with choices", columns, rows, heads=2))
    return Section(
        "calibration",
        "How far the odds can be believed",
        [
            "Of questions with choices: is a pick that the model gives 80% right in 80% of the cases? Picks "
            f"are put in {BINS} bins by their probability; a larger point stands for more of them. Below the "
            "dashed line a model is surer than it should be."
        ],
        parts,
    )


def _bins(model: str, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
    """The picks by summed log-likelihood, in bins of their probability, as the calibration error has them."""
    ballots = [ballot for one in predictions if (ballot := one.ballot) is not None]
    picks = [
        (float(one.probabilities.max()), int(one.probabilities.argmax()) == one.right) for one in ballots
    ]
    for number in range(BINS):
        found = [pick for pick in picks if min(int(pick[0] * BINS), BINS - 1) == number]
        if found:
            yield {
                "model": NAMES[model],
                "probability": sum(probability for probability, _ in found) / len(found),
                "right": sum(hit for _, hit in found) / len(found),
                "n": len(found),
            }


def _choice_cells(one: Figures) -> list[str]:
    return [
        str(one["choices"]),
        *(percent(one.get(name)) for name in SHARES),
        *(decimal(one.get(name)) for name in ("brier", "calibration_error")),
        *(" · ".join(map(str, one.get(name, ()))) for name in ("right_positions", "picked_positions")),
    ]


def _lengths(predictions: Mapping[str, Sequence[Prediction]]) -> Section:
    """Of questions without choices, whose answers are written."""
    written = {
        model: [one for one in found if one.example.choices is None]
        for model, found in predictions.items()
        if model in ("base", "tuned", "shots")
    }
    if not written["tuned"]:
        return Section("lengths", "", [], [])
    counts = {"right": [len(one.example.answer.split()) for one in written["tuned"]]} | {
        model: [len(one.answer.text.split()) for one in found] for model, found in written.items()
    }
    legend = [Series("right", "var(--text)", "circle"), *series_of(list(written))]
    values = [
        value for one, lengths in zip(legend, counts.values(), strict=True)
        for value in _histogram(one.name, lengths, _edges(counts.values()))
    ]  # fmt: skip
    text = "Shares of answers by their number of words; the table below has medians."
    rows = [
        [kind, *(_median(lengths, written["tuned"], kind) for lengths in counts.values())]
        for kind in sorted({one.example.kind for one in written["tuned"]})
    ]
    columns = ["questions", *(one.name for one in legend)]
    return Section(
        "lengths",
        "How long answers are",
        ["In words. Answers longer than the scale are counted at its end."],
        [
            Chart("Words in an answer", charts.lengths(values, legend, text), legend),
            Table("Median number of words (and most)", columns, rows),
        ],
    )


def _edges(counts: Iterable[Sequence[int]]) -> list[int]:
    """Where bins begin, in words, and where the last one ends."""
    limit = max(int(np.quantile(lengths, LONGEST, method="higher")) for lengths in counts)
    width = limit // MOST_BINS + 1
    return list(range(0, limit + 2 * width, width))


def _histogram(name: str, lengths: Sequence[int], edges: Sequence[int]) -> Iterator[dict[str, Any]]:
    width, last = edges[1], len(edges) - 2
    found = Counter(min(length // width, last) for length in lengths)
    for number, start in enumerate(edges[:-1]):
        span = f"{start} or more" if number == last else str(start)
        if width > 1 and number != last:
            span = f"{start} to {start + width - 1}"
        yield {"answers": name, "words": start, "span": span, "share": found[number] / len(lengths)}
    yield {"answers": name, "words": edges[-1], "span": f"more than {edges[-1]}", "share": 0}


def _median(lengths: Sequence[int], predictions: Sequence[Prediction], kind: str) -> str:
    pairs = zip(lengths, predictions, strict=True)
    found = [length for length, one in pairs if one.example.kind == kind]
    return f"{statistics.median(found):g} ({max(found)})"


def _record(record: Mapping[str, Any]) -> Section:
    parameters = [[name, value] for name, value in _flat(record.get("parameters", {}))]
    made_of = [
        *([name, f"sha256 {digest}"] for name, digest in record.get("inputs", {}).items()),
        *([f"base model: {name}", value] for name, value in _flat(record.get("base_model", {}))),
    ]
    tables = [
        Table("What was asked", ["input", "content"], made_of, words=True),
        Table("Parameters", ["parameter", "value"], parameters, words=True),
    ]
    return Section(
        "record",
        "Parameters and record",
        ["Equal digests are equal bytes. models/record.json has those of code and training data too."],
        [table for table in tables if table.rows],
    )


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and their values, as in params.yaml."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{name}", text
