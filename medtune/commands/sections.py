"""Every section of params.yaml; the words above its keys and the schema for editors, made from the types.

    python -m medtune.commands.sections       # make params: after an edit of a params.py

rewrites the comments of params.yaml, not its values, and params.schema.json.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from medtune.answer.params import AnswerParams
from medtune.core.errors import MedtuneError, run
from medtune.core.outputs import write_text
from medtune.core.section import PARAMS_FILE, Section
from medtune.core.yaml_file import parse_yaml
from medtune.data.params import DataParams
from medtune.evaluate.params import DiffParams, EvaluateParams
from medtune.export.params import ExportParams
from medtune.model.params import ModelParams, PromptParams
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams

SECTION_TYPES: tuple[type[Section], ...] = (
    DataParams,
    ModelParams,
    PromptParams,
    ComputeParams,
    FinetuneParams,
    AnswerParams,
    EvaluateParams,
    DiffParams,
    ExportParams,
)
SCHEMA_FILE = Path("params.schema.json")
WIDTH = 110
HEAD = (
    "Every knob of the pipeline. A stage reads only the sections that dvc.yaml lists for it, so an edit "
    "reruns the stages it affects and no other; `medtune check` tells whether all is well. The words come "
    "from the types (medtune/*/params.py): make params."
)

_KEY = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?P<value>.*)")


def explained(text: str) -> str:
    """A params.yaml with the explanation of each key above it; comments that stand there are replaced."""
    words = _words()
    lines = [f"# yaml-language-server: $schema={SCHEMA_FILE}", *_comment(HEAD, "")]
    path: list[str] = []
    within_text = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if within_text is not None and (not line.strip() or indent > within_text):
            lines.append(line)
            continue
        within_text = None
        match = _KEY.fullmatch(line.partition(" #")[0].rstrip())
        if match is None:
            if line.strip() and not line.lstrip().startswith("#"):
                lines.append(line)
            continue
        path = [*path[: indent // 2], match["key"]]
        if indent == 0:
            lines.append("")
        lines += _comment(words.get(tuple(path), ""), match["indent"])
        lines.append(match[0])
        if match["value"].strip()[:1] in (">", "|"):
            within_text = indent
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of params.yaml."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for section in SECTION_TYPES:
        described = section.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= described.pop("$defs", {})
        properties[section.name] = described
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml of medtune",
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
        "$defs": definitions,
    }


def schema_text() -> str:
    """The content of params.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


@cache
def named_entries() -> frozenset[tuple[str, ...]]:
    """The paths of the keys whose value is a mapping by names of the user's own, such as data.sources."""
    return frozenset(
        (section.name, name)
        for section in SECTION_TYPES
        for name, field in section.model_fields.items()
        if any(_is_by_name(part) for part in (field.annotation, *get_args(field.annotation)))
    )


def _is_by_name(annotation: Any) -> bool:
    key, value = (*get_args(annotation), None, None)[:2]
    is_model = isinstance(value, type) and issubclass(value, BaseModel)
    return get_origin(annotation) is dict and key is str and is_model


def _words() -> dict[tuple[str, ...], str]:
    """What stands above each key, by its path: a section's docstring, a field's explanation."""
    found: dict[tuple[str, ...], str] = {}
    for section in SECTION_TYPES:
        found[section.name,] = section.__doc__ or ""
        found |= dict(_fields(section, (section.name,)))
    return found


def _fields(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, field in model.model_fields.items():
        yield (*above, name), field.description or ""
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _fields(inner, (*above, name))


def _comment(text: str, indent: str) -> list[str]:
    """The text as comment lines; none for no text."""
    prefix = f"{indent}# "
    plain = " ".join(text.split())
    return textwrap.wrap(
        plain,
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_on_hyphens=False,
        break_long_words=False,
    )


def main() -> None:
    """Rewrite the comments of params.yaml, and params.schema.json."""
    before = PARAMS_FILE.read_text(encoding="utf-8")
    after = explained(before)
    if parse_yaml(after, PARAMS_FILE) != parse_yaml(before, PARAMS_FILE):
        raise MedtuneError(f"{PARAMS_FILE}: its values would change; accepted: a key a line, indented by two")
    write_text(PARAMS_FILE, after)
    write_text(SCHEMA_FILE, schema_text())


if __name__ == "__main__":
    run(main)
