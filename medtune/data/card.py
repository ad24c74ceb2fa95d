"""The data card: what the questions are, where they come from, under which licence, what was left out."""

from collections.abc import Mapping

from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.data import ontology
from medtune.data.faults import REASONS
from medtune.data.params import DataParams, SourceParams


def data_card(
    params: DataParams,
    attribution: str,
    counts: Mapping[str, Mapping[str, int]],
    left_out: Mapping[str, Mapping[str, int]],
) -> str:
    """Markdown for `data/prepared/README.md`.

    `counts` holds the examples by split and kind, `left_out` the rows by source and reason.
    """
    kinds = list(params.kinds or sorted({kind for by_kind in counts.values() for kind in by_kind}))
    rows = [[split, *(str(by_kind.get(kind, 0)) for kind in kinds)] for split, by_kind in counts.items()]
    sources = ", ".join(f"`{source.path or name}`" for name, source in params.sources.items())
    several = "s" if len(params.sources) > 1 else ""
    parts = [
        "# Medical questions and answers",
        f"Source{several}: {sources}, split by group with seed {params.seed}.",
        attribution,
        _table(["split", *kinds], rows),
        *_left_out(left_out),
        NOT_MEDICAL_ADVICE,
    ]
    return "\n\n".join(parts) + "\n"


def attribution(params: DataParams) -> str:
    """Whom and what the licences of the sources want named, in Markdown: a paragraph each."""
    found = {name: _words(name, source) for name, source in params.sources.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    return "\n\n".join(f"**{name}.** {words}" for name, words in found.items())


def _words(name: str, source: SourceParams) -> str:
    if source.origin == "package":
        return ontology.attribution(source)
    places = [source.path] if source.path else list((source.splits or {}).values())
    where = ", ".join(f"`{place}`" for place in places)
    if source.origin == "hub":
        where = f"{where} on the hub at `{source.revision}`"
    licence = source.license or f"unknown: data.sources.{name}.license does not say"
    said = [f"From {where}; licence: {licence}.", source.attribution or ""]
    return " ".join(part for part in said if part)


def _left_out(left_out: Mapping[str, Mapping[str, int]]) -> list[str]:
    rows = [
        [source, str(count), REASONS[reason]]
        for source, reasons in left_out.items()
        for reason, count in reasons.items()
    ]
    if not rows:
        return []
    return ["Left out, row by row in `left_out.csv`:", _table(["source", "rows", "reason"], rows)]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    lines[1] = ["---"] * len(head)
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text[1] = "|" + "---|" * len(head)
    return "\n".join(text)
