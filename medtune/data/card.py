"""The data card: what the questions are, where they come from, under which licence, what was left out.

Of the data it has counts and the names of kinds and sources, and no text.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

from medtune.core.front_matter import licence_of, with_front_matter
from medtune.core.markdown import code, plain, table
from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.data import ontology
from medtune.data.faults import REASONS
from medtune.data.params import DataParams, SourceParams
from medtune.data.tables import SHOWN, bars
from medtune.data.tally import Tally

TITLE = "Medical questions and answers"


def data_card(
    params: DataParams, attribution: str, report: Mapping[str, Any], tallies: Mapping[str, Tally]
) -> str:
    """Markdown with the hub's front matter for `data/prepared/README.md`.

    `report` is metrics/data.json, `tallies` are by split.
    """
    sources = ", ".join(code(source.path or name) for name, source in params.sources.items())
    several = "s" if len(params.sources) > 1 else ""
    parts = [
        f"# {TITLE}",
        f"Source{several}: {sources}, split by group with seed {params.seed}.",
        attribution,
        "Percentages and bars are shares of a split.",
        "## Kinds",
        _by_name("kind", report["examples"], params.kinds or ()),
    ]
    if several:
        found = report["sources"]
        by_split = {split: {name: of[split] for name, of in found.items()} for split in tallies}
        parts += ["## Sources", _by_name("source", by_split)]
    parts += [
        "## Words of a question with its context",
        *_lengths({split: tally.questions for split, tally in tallies.items()}),
        "## Words of an answer",
        *_lengths({split: tally.answers for split, tally in tallies.items()}),
        *_right_choices({split: tally.right_choices for split, tally in tallies.items()}),
        *_left_out(report["left_out"]),
        NOT_MEDICAL_ADVICE,
    ]
    return with_front_matter(_front_matter(params, report), "\n\n".join(parts))


def described_sources(params: DataParams) -> dict[str, dict[str, str | None]]:
    """Of each source what the model card names: where it is from, at which commit, its licence."""
    return {
        name: {
            "origin": source.origin,
            "path": source.path,
            "revision": source.revision,
            "license": _licence(source),
        }
        for name, source in params.sources.items()
    }


def _licence(source: SourceParams) -> str | None:
    return ontology.LICENCE if source.origin == "package" else source.license


def _front_matter(params: DataParams, report: Mapping[str, Any]) -> dict[str, Any]:
    sources = params.sources.values()
    sizes = {split: sum(counts.values()) for split, counts in report["examples"].items()}
    hub = sorted({source.path for source in sources if source.origin == "hub" and source.path})
    files = [{"split": split, "path": f"{split}.jsonl"} for split in sizes]
    return {
        "pretty_name": TITLE,
        **_licences([_licence(source) or "unknown" for source in sources]),
        "task_categories": ["question-answering"],
        "size_categories": [_size(sum(sizes.values()))],
        **({"source_datasets": hub} if hub else {}),
        "tags": ["medical", "medtune"],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _licences(names: Iterable[str]) -> dict[str, Any]:
    """One licence as the hub takes it, or a list of them; of several without an identifier all are named."""
    names = list(dict.fromkeys(names))
    found = [licence_of(name) for name in names]
    known = list(dict.fromkeys(one["license"] for one in found))
    other = "-and-".join(one["license_name"] for one in found if "license_name" in one)
    named = {"license_name": other} if other else {}
    linked = {"license_link": ontology.LICENCE_LINK} if other and ontology.LICENCE in names else {}
    return {"license": known[0] if len(known) == 1 else known} | named | linked


def _size(examples: int) -> str:
    """In the words of the hub."""
    ends = ((1_000, "1K"), (10_000, "10K"), (100_000, "100K"), (1_000_000, "1M"), (10_000_000, "10M"))
    lower = ""
    for end, name in ends:
        if examples < end:
            return f"{lower}<n<{name}" if lower else f"n<{name}"
        lower = name
    return f"n>{lower}"


def attribution(params: DataParams) -> str:
    """Whom and what the licences of the sources want named, in Markdown: a paragraph each."""
    found = {name: _words(name, source) for name, source in params.sources.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    return "\n\n".join(f"**{plain(name)}.** {words}" for name, words in found.items())


def _words(name: str, source: SourceParams) -> str:
    if source.origin == "package":
        return ontology.attribution(source)
    places = [source.path] if source.path else list((source.splits or {}).values())
    where = ", ".join(map(code, places))
    if source.origin == "hub":
        where = f"{where} on the hub at `{source.revision}`"
    licence = source.license or f"unknown: data.sources.{plain(name)}.license does not say"
    said = [f"From {where}; licence: {licence}.", source.attribution or ""]
    return " ".join(part for part in said if part)


def _by_name(head: str, counts: Mapping[str, Mapping[str, int]], also: Iterable[str] = ()) -> str:
    """The most frequent names, and all others in one row; `also` are those that may have no example."""
    totals = Counter(dict.fromkeys(also, 0))
    for found in counts.values():
        totals.update(found)
    names = sorted(totals, key=lambda name: (-totals[name], name))
    rows = [(plain(name), [name]) for name in names[:SHOWN]]
    if others := names[SHOWN:]:
        rows.append((f"{len(others)} more", others))
    shown = {
        split: [sum(found.get(name, 0) for name in together) for _, together in rows]
        for split, found in counts.items()
    }
    return bars(head, [label for label, _ in rows], shown)


def _lengths(lengths: Mapping[str, "Counter[int]"]) -> list[str]:
    """Bins of 1 word, 2 or 3, 4 to 7 and so on, each of one `int.bit_length`."""
    bins = {split: Counter[int]() for split in lengths}
    for split, found in lengths.items():
        for words, times in found.items():
            bins[split][words.bit_length()] += times
    there = [number for found in bins.values() for number in found]
    numbers = range(min(there), max(there) + 1)
    shown = {split: [found[number] for number in numbers] for split, found in bins.items()}
    figures = ", ".join(f"{split} {_median(found):,} and {max(found):,}" for split, found in lengths.items())
    return [
        bars("words", [_range(2**number // 2, 2**number - 1) for number in numbers], shown),
        f"Median and longest: {figures}.",
    ]


def _median(lengths: "Counter[int]") -> int:
    """The lower one of two."""
    ahead = (lengths.total() + 1) // 2
    for words in sorted(lengths):
        ahead -= lengths[words]
        if ahead <= 0:
            break
    return words


def _right_choices(places: Mapping[str, "Counter[tuple[int, int]]"]) -> list[str]:
    most = max((choices for found in places.values() for _, choices in found), default=0)
    if not most:
        return []
    ranges = [(place, place) for place in range(1, min(most, SHOWN) + 1)]
    if most > SHOWN:
        ranges.append((SHOWN + 1, most))
    shown = {
        split: [
            sum(times for (place, _), times in found.items() if first <= place <= last)
            for first, last in ranges
        ]
        for split, found in places.items()
    }
    chance = {
        split: [_by_chance(found, first, last) for first, last in ranges] for split, found in places.items()
    }
    return [
        "## Place of the right choice",
        "By chance: so many, 19 times out of 20, if every place is as likely as any other.",
        bars("place", [_range(first, last) for first, last in ranges], shown, chance),
    ]


def _by_chance(found: "Counter[tuple[int, int]]", first: int, last: int) -> str:
    """How many right choices are expected from the place `first` to `last`, with two standard deviations."""
    odds = [
        (times, max(0, min(choices, last) - first + 1) / choices)
        for (_, choices), times in sorted(found.items())
    ]
    expected = sum(times * share for times, share in odds)
    deviation = sqrt(sum(times * share * (1 - share) for times, share in odds))
    return f"{expected:,.1f} ± {2 * deviation:,.1f}"


def _range(first: int, last: int) -> str:
    return f"{first}" if last <= first else f"{first}-{last}"


def _left_out(left_out: Mapping[str, Mapping[str, int]]) -> list[str]:
    rows = [
        (plain(source), f"{count:,}", REASONS[reason])
        for source, reasons in left_out.items()
        for reason, count in reasons.items()
    ]
    if not rows:
        return []
    sources, counts, reasons = zip(*rows, strict=True)
    return [
        "## Left out",
        "Row by row in `left_out.csv`:",
        table([("source", "<", sources), ("rows", ">", counts), ("reason", "<", reasons)]),
    ]
