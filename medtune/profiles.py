"""Profiles: settings for one model on one kind of machine, merged into `params.yaml` by `medtune use`.

A profile is a part of a params.yaml, with every value on one line:

    # What it is, in one line
    model:
      source: meta-llama/Llama-3.2-1B-Instruct
    compute:
      attention: sdpa

Values are replaced in the text itself, so every other byte of `params.yaml` stays: comments, and what the
user has set that no profile touches.
"""

import shutil
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

import yaml

from medtune.errors import MedtuneError, nearest
from medtune.params import PARAMS_FILE, Section, read_yaml

PROFILES = Path("profiles")


def list_profiles(folder: Path = PROFILES) -> dict[str, str]:
    """The profiles by name, each with its description: the comment that its file begins with."""
    if not folder.is_dir():
        raise MedtuneError(f"{folder}: no such folder; run this in the top folder of the repository")
    descriptions = {}
    for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        descriptions[path.stem] = first.removeprefix("#").strip() if first.startswith("#") else ""
    return descriptions


def apply_profile(
    name: str, params_file: Path = PARAMS_FILE, folder: Path = PROFILES, *, write: bool = True
) -> str:
    """Merge a profile into `params_file`, in one step and only if the whole is valid; return the diff."""
    profile = folder / f"{name}.yaml"
    expected = merged_params(name, params_file, folder)
    # As bytes: reading as text would turn another system's line ends into this one's.
    before = params_file.read_bytes().decode()
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(before, Loader=yaml.SafeLoader)):
        raise MedtuneError(
            f"{params_file}: holds an alias (*name), whose value stands elsewhere; write it out"
        )
    after = _merge(before, profile)
    _replace(params_file, after, expected, profile, write=write)
    return "\n".join(
        unified_diff(
            before.splitlines(), after.splitlines(), str(params_file), str(params_file), n=2, lineterm=""
        )
    )


def merged_params(name: str, params_file: Path = PARAMS_FILE, folder: Path = PROFILES) -> dict[str, Any]:
    """The content of `params_file` with a profile merged into it, not yet checked."""
    profiles = list(list_profiles(folder))
    if name not in profiles:
        raise MedtuneError(f"no profile '{name}' in {folder}; {nearest(name, profiles)}")
    _check(params_file)
    merged: dict[str, Any] = _overlay(read_yaml(params_file), read_yaml(folder / f"{name}.yaml"))
    return merged


def _check(params_file: Path) -> None:
    for section in Section.__subclasses__():
        section.load(params_file)


def _overlay(content: Any, changes: Any) -> Any:
    """What a merge means: mappings key by key, every other value replaced."""
    if not isinstance(content, dict) or not isinstance(changes, dict):
        return changes
    return content | {key: _overlay(content.get(key), value) for key, value in changes.items()}


def _merge(text: str, profile: Path) -> str:
    """The text of a params.yaml with the values of a profile in it."""
    source = profile.read_bytes().decode()
    target, changes = _compose(text), _compose(source)
    # From the end on, so that the places before stay where they are.
    for start, end, entry in sorted(_edits(target, text, changes, source, profile), reverse=True):
        text = text[:start] + entry + text[end:]
    return text


def _compose(text: str) -> yaml.MappingNode:
    """A YAML mapping as nodes that know their places in the text."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return node


def _edits(
    target: yaml.MappingNode, text: str, changes: yaml.MappingNode, source: str, profile: Path
) -> Iterator[tuple[int, int, str]]:
    """Start, end and new content of every place in the target's text that a profile decides about."""
    entries = {key.value: (key, value) for key, value in target.value}
    for key, value in changes.value:
        old_key, old = entries.get(key.value, (None, None))
        if isinstance(old, yaml.MappingNode) and isinstance(value, yaml.MappingNode):
            yield from _edits(old, text, value, source, profile)
            continue
        entry = f"{key.value}: {_on_one_line(value, source, profile)}"
        start = target.start_mark.index
        if old_key is not None:
            yield old_key.start_mark.index, _end(old, text), entry
        elif target.flow_style:
            yield start + 1, start + 1, f"{entry}, "
        else:
            # A key that params.yaml may leave out, and does: it goes before the first one there.
            yield start, start, f"{entry}\n{' ' * target.start_mark.column}"


def _on_one_line(node: yaml.Node, source: str, profile: Path) -> str:
    """A value as the profile writes it."""
    text = source[node.start_mark.index : _end(node, source)]
    block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    if block or "\n" in text:
        line = node.start_mark.line + 1
        raise MedtuneError(f"{profile}, line {line}: expected a value on one line, such as 3 or [a, b]")
    return text or "null"


def _end(node: yaml.Node, text: str) -> int:
    """Where a value ends; PyYAML counts the lines after a block to it, and the comments in them."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last, text)
    start: int = node.start_mark.index
    return start + len(text[start : node.end_mark.index].rstrip())


def _replace(path: Path, text: str, expected: Any, profile: Path, *, write: bool) -> None:
    """Make `text` the file's content, in one step, if it is valid and means what it should."""
    path = path.resolve()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(text.encode())
        if not _reads_as(partial, expected):
            raise MedtuneError(f"{profile}: a value reads otherwise within {path.name}; put it in quotes")
        try:
            _check(partial)
        except MedtuneError as error:
            raise MedtuneError(f"{profile}: {str(error).removeprefix(f'{partial}: ')}") from None
        if write:
            shutil.copymode(path, partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _reads_as(path: Path, expected: Any) -> bool:
    try:
        return read_yaml(path) == expected
    except MedtuneError:
        return False
