"""The pages of the site that are made from the code: all parameters, all commands, and CONTRIBUTING.md.

`make docs` builds docs/ with them (mkdocs.yml names this module as a hook), so that they cannot be behind.
"""

import argparse
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.commands.cli import _parser
from medtune.commands.sections import SECTION_TYPES, named_entries
from medtune.core.errors import PATTERNS
from medtune.core.section import PARAMS_FILE, Section
from medtune.core.yaml_file import read_yaml

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

COLUMNS = "100"
"""Characters of a line of a command's help."""
CONTRIBUTING = Path("CONTRIBUTING.md")
NO_VALUE = ""
_LIMITS = {
    "minimum": "{} or more",
    "exclusiveMinimum": "more than {}",
    "maximum": "{} at most",
    "exclusiveMaximum": "less than {}",
    "minItems": "{} or more of them",
}


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that are no file of docs/; mkdocs calls this."""
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent
    pages = {
        "parameters.md": parameters_page(read_yaml(root / PARAMS_FILE)),
        "commands.md": commands_page(),
        "contributing.md": as_page((root / CONTRIBUTING).read_text(encoding="utf-8")),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def as_page(text: str) -> str:
    """A page of the top folder as one of docs/; what is no page of the site is named, not linked."""
    elsewhere = r"\[([^\]]+)\]\((?!https?:|#|docs/)[^)]+\)"
    return re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", re.sub(elsewhere, r"\1", text))


def parameters_page(shipped: Mapping[str, Any]) -> str:
    """Every key of params.yaml with its shipped value, what is accepted, and its explanation."""
    return "\n".join(_parameters(shipped)) + "\n"


def _parameters(shipped: Mapping[str, Any]) -> Iterator[str]:
    yield "# All parameters"
    yield ""
    yield (
        "Every key of `params.yaml`, made from the types in `medtune/*/params.py`. Sections, keys and values "
        "that are not here are refused, with the nearest one that is. Values are those that the repository "
        "ships; NAME is one of your own."
    )
    for section in SECTION_TYPES:
        yield from ["", f"## {section.name}", "", _words(section.__doc__ or ""), ""]
        yield from ["| key | shipped | accepted | |", "|---|---|---|---|"]
        for key, value, field in _fields(section, shipped):
            cells = (f"`{key}`", value, _accepted(field["schema"], field["all"]), _words(field["words"]))
            yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _fields(section: type[Section], shipped: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Dotted key, shipped value, and schema of every field, those of models in it included."""
    schema = section.model_json_schema()
    definitions = schema.get("$defs", {})
    waiting = [((section.name, name), field) for name, field in schema["properties"].items()]
    while waiting:
        path, field = waiting.pop(0)
        yield (
            ".".join(path),
            _shipped(path, shipped),
            {"schema": field, "all": definitions, "words": field.get("description", "")},
        )
        by_name = ("NAME",) if path in named_entries() else ()
        inner = [
            ((*path, *by_name, name), below)
            for model in _models(field)
            for name, below in definitions[model].get("properties", {}).items()
        ]
        waiting = inner + waiting


def _models(schema: Mapping[str, Any]) -> list[str]:
    """The models that a value may be or hold, but for those in which a value is only chosen."""
    found = [str(schema["$ref"]).rpartition("/")[2]] if "$ref" in schema else []
    parts = [*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")]
    return found + [model for part in parts if isinstance(part, Mapping) for model in _models(part)]


def _shipped(path: tuple[str, ...], shipped: Mapping[str, Any]) -> str:
    value: Any = shipped
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return NO_VALUE
        value = value[part]
    if isinstance(value, Mapping) and value:
        return NO_VALUE
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """A value as params.yaml has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value) if value != {} else "{}"


def _accepted(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a schema accepts, in words."""
    if "anyOf" in schema:
        return ", or ".join(_accepted(part, definitions) for part in schema["anyOf"])
    if "$ref" in schema:
        return _accepted(definitions[str(schema["$ref"]).rpartition("/")[2]], definitions)
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{_yaml(value)}`" for value in schema.get("enum", [schema.get("const")]))
    words = {"null": "`null`", "boolean": "`true`, `false`", "object": "a mapping", "string": "a text"}
    kind = str(schema.get("type", "any value"))
    said = words.get(kind, {"integer": "a whole number", "number": "a number"}.get(kind, kind))
    if kind == "array":
        said = f"a list: {_accepted(schema['items'], definitions)}" if "items" in schema else "a list"
    if words_of := PATTERNS.get(str(schema.get("pattern"))):
        said = words_of.removeprefix("be ")
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    return ", ".join([said, *limits])


def commands_page() -> str:
    """What every command of `medtune` says of itself."""
    return "\n".join(_commands()) + "\n"


def _commands() -> Iterator[str]:
    yield "# All commands"
    yield ""
    yield "What `medtune COMMAND --help` says, made from the code. `medtune --help` has a line for each."
    for name, command in subcommands().items():
        yield from ["", f"## medtune {name}", "", "```text", _help(command), "```"]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command, by its name."""
    actions = _parser()._actions
    found = next(action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def _help(command: argparse.ArgumentParser) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        return command.format_help().rstrip()
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _words(text: str) -> str:
    """Text for Markdown in which names in braces and angle brackets stay what they are."""
    return re.sub(r"([<>{}*])", lambda match: f"&#{ord(match[0])};", " ".join(text.split()))
