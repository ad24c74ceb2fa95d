"""`medtune pin`: the present commits and hashes of what params.yaml names, written there in one step.

    medtune pin                              # the base model and every source that a commit or a hash pins
    medtune pin medqa --revision v1.0        # one of them, at a branch, a tag or a commit

Of the base model on the hub the commit is written, which pins its files; of a folder the hash. Of a dataset
on the hub both, for which its files are fetched; of local files the hash, if the source has the key `sha256`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from medtune.commands.params_file import LAYOUT, edit_file, scalar, with_value
from medtune.core.errors import MedtuneError, nearest
from medtune.core.hub import present_commit
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml, read_yaml
from medtune.data import hub
from medtune.data.params import DataParams, SourceParams
from medtune.data.sources import local_sha256
from medtune.model.files import find_files, is_hub_id
from medtune.model.hub import repository_of
from medtune.model.params import ModelParams

MODEL = "model"
COMMIT = re.compile("[0-9a-f]{40}")

Keys = tuple[str, ...]
Values = dict[Keys, str | None]
Pinned = ModelParams | SourceParams


def pin(
    names: Sequence[str] = (),
    reference: str | None = None,
    params_file: Path = PARAMS_FILE,
    *,
    write: bool = True,
) -> str:
    """Write present revisions and hashes of `names` (none: all) into params.yaml; returns the difference.

    `reference` is a branch, a tag or a commit of the one hub id that is named. MedtuneError: a name is
    unknown or has nothing to pin, the hub cannot be asked, or the data cannot be had.
    """
    content = read_yaml(params_file)
    floating = _without_floating(content)
    there = _pinnable(content, params_file)
    chosen = _chosen(list(names), there)
    on_hub = [name for name, params in chosen.items() if is_on_hub(params)]
    if reference is not None and len(on_hub) != 1:
        found = f"; name one of {', '.join(on_hub)}" if on_hub else ", and nothing on the hub is named"
        raise MedtuneError(f"--revision is of one repository{found}")
    values: Values = {}
    for name, params in chosen.items():
        values |= _present(name, params, reference or floating.get(name))
    return edit_file(params_file, _writer(params_file, values), write=write)


def unpinned_names(params_file: Path = PARAMS_FILE) -> list[str]:
    """What params.yaml names on the hub without saying which commit, or of data which content."""
    return [
        name
        for name, params in _pinnable(read_yaml(params_file), params_file).items()
        if is_on_hub(params)
        and (params.revision is None or (isinstance(params, SourceParams) and params.sha256 is None))
    ]


def is_on_hub(params: Pinned) -> bool:
    """Whether it is a repository of the hub."""
    return is_hub_id(params) if isinstance(params, ModelParams) else params.origin == "hub"


def _without_floating(content: dict[str, Any]) -> dict[str, str]:
    """Take out revisions that are no commits, which no section accepts: by name what they were."""
    found = {}
    for name, place in _places(content):
        revision = place.get("revision")
        if isinstance(revision, str) and COMMIT.fullmatch(revision) is None:
            found[name] = revision
            place["revision"] = None
    return found


def _places(content: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings of params.yaml that can hold a revision, by the name that they are pinned by."""
    data = content.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    for name, place in (MODEL, content.get("model")), *(sources.items() if isinstance(sources, dict) else ()):
        if isinstance(place, dict):
            yield str(name), place


def _pinnable(content: Mapping[str, Any], params_file: Path) -> dict[str, Pinned]:
    return {
        MODEL: ModelParams.of(content, params_file),
        **DataParams.of(content, params_file).sources,
    }


def _chosen(names: list[str], there: dict[str, Pinned]) -> dict[str, Pinned]:
    for name in names:
        if name not in there:
            raise MedtuneError(f"'{name}' is neither model nor a source; {nearest(name, list(there))}")
        if not _has_pin(there[name]):
            raise MedtuneError(
                f"{name} has nothing to pin: a package is pinned by its version and its hash already, and "
                "local files need no hash, unless their source has the key `sha256`"
            )
    chosen = {name: params for name, params in there.items() if name in names or not names}
    found = {name: params for name, params in chosen.items() if _has_pin(params)}
    if not found:
        raise MedtuneError(
            "nothing in params.yaml is to be pinned: it names no hub id, no folder with a base model, and no "
            "local files with a sha256"
        )
    return found


def _has_pin(params: Pinned) -> bool:
    if isinstance(params, ModelParams):
        return not params.source.startswith("package:")
    return params.origin == "hub" or (params.origin == "files" and "sha256" in params.model_fields_set)


def _present(name: str, params: Pinned, reference: str | None) -> Values:
    """The values to be written for one of them, by their paths in params.yaml."""
    if isinstance(params, ModelParams):
        if not is_hub_id(params):
            return {(MODEL, "sha256"): find_files(params).sha256}
        commit = present_commit(repository_of(params), reference)
        # The commit pins the files; the hash of another commit's would be wrong.
        return {(MODEL, "revision"): commit} | (
            {} if commit == params.revision else {(MODEL, "sha256"): None}
        )
    place = ("data", "sources", name)
    if params.origin == "files":
        return {(*place, "sha256"): local_sha256(name, params)}
    commit = present_commit(hub.repository_of(name, params), reference)
    fetched = hub.fetch(name, params.model_copy(update={"revision": commit}))
    return {(*place, "revision"): commit, (*place, "sha256"): fetched.sha256}


def _writer(params_file: Path, values: Values) -> Callable[[str], str]:
    def change(text: str) -> str:
        wanted = deepcopy(parse_yaml(text, params_file))
        for (*above, key), value in values.items():
            place = wanted
            for name in above:
                place = place[name]
            if place.get(key) == value:
                continue
            place[key] = value
            text = with_value(text, (*above, key), scalar(value))
        if parse_yaml(text, params_file) != wanted:
            raise MedtuneError(f"{params_file}: cannot be edited as it is laid out; {LAYOUT}")
        return text

    return change
