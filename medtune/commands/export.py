"""`medtune export`: the trained adapter in the forms that other runtimes load, and its drift in each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medtune.commands.tables import as_markdown, as_text
from medtune.core.errors import MedtuneError, nearest
from medtune.export.places import EXPORT, FORMATS, METRICS, Format

HEADER = (
    "",
    "n",
    "same prompts",
    "same answers",
    "log-likelihood off by",
    "at most",
    "accuracy",
    "evaluated",
    "verdict",
)


def chosen_formats(names: Sequence[str]) -> list[Format]:
    """The formats of these names, in an order of their own; all of them for none."""
    for name in names:
        if name not in FORMATS:
            raise MedtuneError(f"export: unknown format '{name}'; {nearest(name, list(FORMATS))}")
    return [one for one in FORMATS if not names or one in names]


def describe_export(found: Mapping[str, Any], formats: Sequence[Format], *, markdown: bool = False) -> str:
    """For people: a line a form, then where the files are."""
    table = as_markdown if markdown else as_text
    lines = [table(HEADER, list(_rows(found, formats)))]
    if kept := [str(EXPORT / kind) for kind in formats if found["formats"][kind]["passed"]]:
        lines += ["", f"written: {', '.join(kept)}; the figures are in {METRICS}{_next(kept)}"]
    return "\n".join(lines)


def _next(kept: Sequence[str]) -> str:
    """What the exports that passed are good for at once."""
    return "; next: medtune serve" if str(EXPORT / "gguf") in kept else ""


def export_as_json(found: Mapping[str, Any]) -> str:
    """For programs: the content of metrics/export.json."""
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def _rows(found: Mapping[str, Any], formats: Sequence[Format]) -> Iterator[list[str]]:
    for kind in formats:
        for form, one in found["formats"][kind]["forms"].items():
            off, accuracy = one["log_likelihood"], one["accuracy"]
            yield [
                f"{form} in {one['runtime']}",
                str(one["questions"]),
                f"{one['prompts']['identical']:.1%}",
                f"{one['answers']['identical']:.1%}",
                f"{off['mean']:.4f}",
                f"{off['largest']:.4f} nats",
                f"{accuracy['after']:.1%}",
                f"{accuracy['before']:.1%}",
                "beyond tolerance" if one["exceeded"] else f"passed, {accuracy['verdict']}",
            ]
