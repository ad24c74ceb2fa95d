"""Profiles: settings for one model on one kind of machine, merged into `params.yaml` by `medtune use`.

A profile is a part of a params.yaml:

    # What it is, in one line
    model:
      source: meta-llama/Llama-3.2-1B-Instruct
    compute:
      attention: sdpa

Comments stay, and what the user has set that no profile touches.
"""

import shutil
from collections.abc import Mapping, MutableMapping
from difflib import unified_diff
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from medtune.commands.sections import SECTION_TYPES
from medtune.core.errors import MedtuneError, nearest
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml

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
    # Also reads the profile for its errors, which name the file and the line.
    merged_params(name, params_file, folder)
    before = params_file.read_text(encoding="utf-8")
    content = _round_trip().load(before)
    _overlay(content, _round_trip().load(profile))
    text = StringIO()
    _round_trip().dump(content, text)
    _replace(params_file, text.getvalue(), profile, write=write)
    file = str(params_file)
    after = text.getvalue().splitlines()
    return "\n".join(unified_diff(before.splitlines(), after, file, file, n=2, lineterm=""))


def merged_params(name: str, params_file: Path = PARAMS_FILE, folder: Path = PROFILES) -> dict[str, Any]:
    """The content of `params_file` with a profile merged into it, not yet checked."""
    profiles = list(list_profiles(folder))
    if name not in profiles:
        raise MedtuneError(f"no profile '{name}' in {folder}; {nearest(name, profiles)}")
    _check(params_file)
    content = read_yaml(params_file)
    _overlay(content, read_yaml(folder / f"{name}.yaml"))
    return content


def _check(params_file: Path) -> None:
    for section in SECTION_TYPES:
        section.load(params_file)


def _round_trip() -> YAML:
    """YAML that is written as it was read: comments, quotes, `1e-3`, and long lines as they are."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _overlay(content: MutableMapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Merge mappings key by key; every other value is replaced."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(content.get(key), MutableMapping):
            _overlay(content[key], value)
        else:
            content[key] = value


def _replace(path: Path, text: str, profile: Path, *, write: bool) -> None:
    """Make `text` the file's content, in one step, if it is valid."""
    path = path.resolve()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        try:
            _check(partial)
        except MedtuneError as error:
            raise MedtuneError(f"{profile}: {str(error).removeprefix(f'{partial}: ')}") from None
        if write:
            shutil.copymode(path, partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
