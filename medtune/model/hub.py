"""Fetching a base model from the hub: one commit, only files that hold no code."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from medtune.core.errors import MedtuneError
from medtune.core.hub import Repository, ask, explained, fetch_large, listing, require_pinned, snapshot, why
from medtune.core.outputs import read_json
from medtune.model.architecture import require_supported
from medtune.model.params import ModelParams

T = TypeVar("T")

SMALL_FILES = [
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
]
SAFE_FILES = ["*.safetensors", *SMALL_FILES]
LICENCE_FILES = [
    f"{name}{end}" for name in ("LICENSE", "NOTICE", "USE_POLICY") for end in ("", ".md", ".txt")
]

# The `*` of a pattern matches folders too.
_IN_FOLDERS = ["*/*"]


class DamagedFileError(MedtuneError):
    """A file in the hub's cache that is not the one that the hub stated."""


def repository_of(model: ModelParams) -> Repository:
    """The repository that `model.source`, a hub id, names."""
    return Repository("model", "model", model.source, model.revision, "model.source", "model.revision")


def require_revision(model: ModelParams) -> None:
    """Refuse a hub id that no commit pins."""
    try:
        require_pinned(repository_of(model))
    except MedtuneError as error:
        raise MedtuneError(f"{error} (a folder is written ./models/base)") from None


def find_commit(model: ModelParams, check: Callable[[Path], T]) -> T:
    """What `check` makes of the folder with the pinned commit's files, in the hub's own cache.

    It refuses a folder that lacks a file. If the cache lacks none, nothing is requested.
    """
    require_revision(model)
    repository, cached = repository_of(model), None
    try:
        with suppress(LocalEntryNotFoundError):
            cached = snapshot(repository, SAFE_FILES, _IN_FOLDERS, local=True)
        if cached is None or listing(repository) is None:
            return check(_fetch(repository))
        return check(cached)
    except HFValidationError as error:
        raise MedtuneError(f"params.yaml: model.source '{model.source}': {error}") from None
    except (OSError, httpx2.HTTPError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if cached is not None:
            # Filled by other means than a download of the whole commit, so without the list of its files.
            try:
                return check(cached)
            except DamagedFileError:
                raise
            except MedtuneError:
                pass
        raise MedtuneError(why(error, repository)) from None


def require_fetchable(model: ModelParams) -> None:
    """Refuse a model that the hub would not give, or whose config.json says that it is not supported."""
    repository = repository_of(model)
    with explained(repository):
        ask(repository, "config.json")
        folder = snapshot(repository, ["config.json"], _IN_FOLDERS)
    require_supported(read_json(folder / "config.json"), f"{model.source} at {model.revision}")


def _fetch(repository: Repository) -> Path:
    ask(repository, "config.json")
    folder = snapshot(repository, SMALL_FILES + LICENCE_FILES, _IN_FOLDERS)
    require_supported(read_json(folder / "config.json"), f"{repository.id} at {repository.revision}")
    weights = [
        name for name in listing(repository) or () if "/" not in name and name.endswith(".safetensors")
    ]
    fetch_large(repository, sorted(weights))
    return snapshot(repository, weights, _IN_FOLDERS) if weights else folder
