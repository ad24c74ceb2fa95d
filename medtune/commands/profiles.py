"""Profiles: settings for a model on a kind of machine, or for a set of questions, merged into `params.yaml`.

A profile is a part of a params.yaml:

    # What it is, in one line
    model:
      source: meta-llama/Llama-3.2-1B-Instruct
    compute:
      attention: sdpa

`medtune use` merges it key by key. Entries that the user names, such as the sources of `data.sources`, are
replaced together: those of the profile are all that there are. Comments stay, and what the user has set that
no profile touches.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from medtune.commands.params_file import LAYOUT, Keys, check_sections, edit_file, value_in, with_value
from medtune.commands.sections import named_entries
from medtune.core.errors import MedtuneError, nearest
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml, read_yaml
from medtune.data.params import DataParams
from medtune.data.tracking import declare, named_files

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
    """Merge a profile into `params_file`, in one step and only if the whole is valid; returns the diff."""
    profile = folder / f"{name}.yaml"
    # Also reads the profile for its errors, which name the file and the line.
    merged = merged_params(name, params_file, folder)
    source = profile.read_text(encoding="utf-8")

    def change(text: str) -> str:
        for keys in list(_changes(parse_yaml(text, params_file), parse_yaml(source, profile))):
            try:
                text = with_value(text, keys, value_in(source, keys))
            except KeyError:
                raise MedtuneError(
                    f"{profile}: {'.'.join(keys)} has no place in {params_file}; {LAYOUT}"
                ) from None
        if parse_yaml(text, params_file) != merged:
            raise MedtuneError(f"{params_file}: cannot be edited as it is laid out; {LAYOUT}")
        return text

    return edit_file(params_file, change, profile, write=write)


def touches_data(name: str, folder: Path = PROFILES) -> bool:
    """Whether a profile says where the questions come from."""
    return DataParams.name in read_yaml(folder / f"{name}.yaml")


def declare_sources() -> bool:
    """Have dvc.yaml depend on the local files that params.yaml now names; whether that changed it."""
    return declare(named_files(DataParams.load()))


def merged_params(name: str, params_file: Path = PARAMS_FILE, folder: Path = PROFILES) -> dict[str, Any]:
    """The content of `params_file` with a profile merged into it, not yet checked."""
    profiles = list(list_profiles(folder))
    if name not in profiles:
        raise MedtuneError(f"no profile '{name}' in {folder}; {nearest(name, profiles)}")
    check_sections(params_file)
    content = read_yaml(params_file)
    _overlay(content, read_yaml(folder / f"{name}.yaml"))
    return content


def _overlay(content: MutableMapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Merge the values that differ."""
    for keys in list(_changes(content, changes)):
        here, value = content, changes
        for key in keys[:-1]:
            here, value = here[key], value[key]
        here[keys[-1]] = value[keys[-1]]


def _changes(
    content: Mapping[str, Any], changes: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[Keys]:
    """The paths of the values to be replaced: mappings key by key, but for entries that the user names."""
    for key, value in changes.items():
        keys, here = (*above, key), content.get(key)
        if isinstance(value, Mapping) and isinstance(here, Mapping) and keys not in named_entries():
            yield from _changes(here, value, keys)
        # By its words: 1, 1.0 and true are equal, and accepted in different places.
        elif key not in content or repr(here) != repr(value):
            yield keys
