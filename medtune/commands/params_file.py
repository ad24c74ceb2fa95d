"""Editing params.yaml where it stands: what is not named stays to the byte, comments and layout included.

    edited = with_value(text, ("model", "revision"), value_in(profile_text, ("model", "revision")))

A parser says where a value begins and ends; the text between is replaced, by that of another file or by a
scalar.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from medtune.commands.sections import SECTION_TYPES
from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import parse_yaml

Keys = Sequence[str]
LAYOUT = "accepted: a key a line, indented by two"


@dataclass(frozen=True)
class Value:
    """The text of a value, from behind the colon, and the column of the key that it stood behind."""

    text: str
    column: int = 0


def scalar(value: str | None) -> Value:
    """A text or null as it is written on one line."""
    if value is None:
        return Value(" null")
    # A hash may look like a number: 12345e67.
    plain = re.fullmatch(r"[\w./-]+", value) and parse_yaml(f"key: {value}", Path("value"))["key"] == value
    return Value(f" {value}" if plain else f" {json.dumps(value, ensure_ascii=False)}")


def value_in(text: str, keys: Keys) -> Value:
    """The value at a path of keys of a YAML text; KeyError if it is not there."""
    key, value = _entry(_root(text), keys)
    return Value(text[_behind(text, key) : _end(text, key, value)], key.start_mark.column)


def with_value(text: str, keys: Keys, value: Value) -> str:
    """The text with another value at a path of keys; a new key goes to the end of its mapping.

    KeyError: the mapping that it would be in is not there.
    """
    root = _root(text)
    try:
        key, old = _entry(root, keys)
    except KeyError:
        return _with_key(text, root if len(keys) == 1 else _entry(root, keys[:-1])[1], keys[-1], value)
    start, end = _behind(text, key), _end(text, key, old)
    first, line_end, others = _moved(value, key.start_mark.column).partition("\n")
    if not line_end:
        return text[:start] + first + text[end:]
    # A comment behind the old value stays on the line of the key.
    comment, _, rest = text[end:].partition("\n")
    return f"{text[:start]}{first}{comment}\n{others}\n{rest}"


def edit_file(path: Path, change: Callable[[str], str], blamed: Path | None = None, *, write: bool) -> str:
    """Change a params.yaml in one step, and only if the outcome is valid; the difference is returned.

    `blamed` is the file that an error names, if it is not this one.
    """
    before = path.read_text(encoding="utf-8")
    after = change(before)
    replace_file(path, after, blamed or path, write=write)
    lines = before.splitlines(), after.splitlines()
    return "\n".join(unified_diff(*lines, str(path), str(path), n=2, lineterm=""))


def replace_file(path: Path, text: str, blamed: Path, *, write: bool) -> None:
    """Make `text` the content of a params.yaml, in one step, if every section of it is valid."""
    path = path.resolve()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        try:
            check_sections(partial)
        except MedtuneError as error:
            raise MedtuneError(f"{blamed}: {str(error).removeprefix(f'{partial}: ')}") from None
        if write:
            shutil.copymode(path, partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_sections(path: Path) -> None:
    """Refuse a params.yaml that has a section that is not valid."""
    for section in SECTION_TYPES:
        section.load(path)


def _root(text: str) -> MappingNode:
    root = YAML(typ="rt", pure=True).compose(text)
    assert isinstance(root, MappingNode)
    return root


def _entry(root: Node, keys: Keys) -> tuple[Node, Node]:
    """The nodes of a key and its value."""
    key, value = root, root
    for name in keys:
        inner = value.value if isinstance(value, MappingNode) else []
        key, value = next((pair for pair in inner if pair[0].value == name), (None, None))  # type: ignore[assignment]
        if key is None:
            raise KeyError(name)
    return key, value


def _behind(text: str, key: Node) -> int:
    return text.index(":", key.end_mark.index) + 1


def _end(text: str, key: Node, value: Node) -> int:
    """Where a value ends: comments and blank lines that follow are not part of it."""
    if isinstance(value, MappingNode) and not value.flow_style and value.value:
        return _end(text, *value.value[-1])
    if isinstance(value, SequenceNode) and not value.flow_style and value.value:
        return _end(text, value.value[-1], value.value[-1])
    end: int = value.end_mark.index
    if isinstance(value, ScalarNode) and value.style in ("|", ">"):
        end = len(text[:end].rstrip())
    # An empty value is where the next key begins.
    return end if value.start_mark.index < value.end_mark.index else _behind(text, key)


def _moved(value: Value, column: int) -> str:
    """The text of a value for a key in another column: its further lines are moved along."""
    first, *others = value.text.split("\n")
    by = column - value.column
    moved = [
        " " * by + line if by > 0 else line[min(-by, len(line) - len(line.lstrip())) :] for line in others
    ]
    return "\n".join([first, *(line if line.strip() else "" for line in moved)])


def _with_key(text: str, mapping: Any, name: str, value: Value) -> str:
    if not isinstance(mapping, MappingNode):
        raise KeyError(name)
    if mapping.flow_style:
        end = mapping.end_mark.index - 1
        return f"{text[:end].rstrip()}{', ' if mapping.value else ''}{_key(name)}:{value.text}{text[end:]}"
    column = mapping.start_mark.column
    last_key, last = mapping.value[-1]
    end = _end(text, last_key, last)
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    return f"{text[:line_end]}\n{' ' * column}{_key(name)}:{_moved(value, column)}{text[line_end:]}"


def _key(name: str) -> str:
    # A name may look like a number, as that of 2024.csv does.
    return scalar(name).text.strip()
