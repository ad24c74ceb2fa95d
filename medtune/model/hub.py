"""Fetching a base model from the hub: one commit, only files that hold no code, each download resumed.

A gated model needs a token in HF_TOKEN. With HF_HUB_OFFLINE nothing is requested.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx2
from filelock import FileLock
from huggingface_hub import (
    constants,
    get_cached_repo_tree,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
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

UNREACHABLE = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    LocalEntryNotFoundError,
)


class DamagedFileError(MedtuneError):
    """A file in the hub's cache that is not the one that the hub stated."""


def require_revision(model: ModelParams) -> None:
    """Refuse a hub id that no commit pins."""
    if model.revision is None:
        raise MedtuneError(
            f"params.yaml: model.source is the hub id '{model.source}', so model.revision must be "
            "the full commit hash (40 hex digits); a branch or tag can change "
            "(a folder is written ./models/base)"
        )


def find_commit(model: ModelParams, check: Callable[[Path], T]) -> T:
    """What `check` makes of the folder with the pinned commit's files, in the hub's own cache.

    It refuses a folder that lacks a file. If the cache lacks none, nothing is requested.
    """
    require_revision(model)
    cached = None
    try:
        with suppress(LocalEntryNotFoundError):
            cached = _snapshot(model, SAFE_FILES, local_files_only=True)
        if cached is None or _listing(model) is None:
            return check(_fetch(model))
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
        raise MedtuneError(_why(error, model)) from None


def _snapshot(model: ModelParams, names: list[str], local_files_only: bool = False) -> Path:
    return Path(
        snapshot_download(
            model.source,
            revision=model.revision,
            allow_patterns=names,
            # The `*` of a pattern matches folders too.
            ignore_patterns=["*/*"],
            local_files_only=local_files_only,
        )
    )


def _listing(model: ModelParams) -> set[str] | None:
    """The names of the commit's files, if the cache holds them; `snapshot_download` puts them there."""
    try:
        return {file.path for file in get_cached_repo_tree(model.source, revision=model.revision)}
    except CachedRepoTreeNotFoundError:
        return None


def require_fetchable(model: ModelParams) -> None:
    """Refuse a model that the hub would not give: one request."""
    try:
        _ask(model)
    except HFValidationError as error:
        raise MedtuneError(f"params.yaml: model.source '{model.source}': {error}") from None
    except (OSError, httpx2.HTTPError) as error:
        raise MedtuneError(_why(error, model)) from None


def _ask(model: ModelParams) -> None:
    """One request that is not repeated tells whether the hub, the token and the commit will do."""
    if not (get_token() or "").isascii():
        raise MedtuneError("HF_TOKEN holds characters that no token has: copy it again")
    with suppress(RemoteEntryNotFoundError):
        answer = get_hf_file_metadata(hf_hub_url(model.source, "config.json", revision=model.revision))
        if answer.commit_hash != model.revision:
            raise MedtuneError(f"{constants.ENDPOINT} (HF_ENDPOINT) does not answer as a model hub does")


def _fetch(model: ModelParams) -> Path:
    _ask(model)
    snapshot = _snapshot(model, SMALL_FILES + LICENCE_FILES)
    weights = [name for name in _listing(model) or () if "/" not in name and name.endswith(".safetensors")]
    for name in sorted(weights):
        _fetch_weights(model, name)
    return _snapshot(model, weights) if weights else snapshot


def _fetch_weights(model: ModelParams, name: str) -> None:
    """Fetch a large file into the hub's cache, going on from where an earlier run was stopped.

    huggingface_hub goes on after a broken connection, but deletes what it has when it gives up, and a killed
    run starts at zero. Nor does it compare the content with the hash that the hub states.
    """
    if isinstance(try_to_load_from_cache(model.source, name, revision=model.revision), str):
        return
    url = hf_hub_url(model.source, name, revision=model.revision)
    stated = get_hf_file_metadata(url)
    if stated.etag is None or re.fullmatch("[0-9a-f]{64}", stated.etag) is None:
        return
    cache = Path(constants.HF_HUB_CACHE)
    repository = repo_folder_name(repo_id=model.source, repo_type="model")
    stored = cache / repository / "blobs" / stated.etag
    partial = stored.with_name(f"{stored.name}.incomplete")
    lock = cache / ".locks" / repository / f"{stated.etag}.lock"
    for path in (stored, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if stored.exists():
            return
        with partial.open("ab") as file:
            if stated.size is not None and file.tell() > stated.size:
                file.seek(0)
                file.truncate()
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=build_hf_headers(),
                expected_size=stated.size,
                displayed_filename=name,
            )
        if file_sha256(partial) != stated.etag:
            partial.unlink()
            raise MedtuneError(f"{model.source}: {name} arrived damaged and was deleted; run this again")
        partial.rename(stored)


def _why(error: Exception, model: ModelParams) -> str:
    """What stopped a download, and what to do. Never the library's own words: they may quote the request."""
    pinned, page = f"{model.source} at {model.revision}", f"{constants.ENDPOINT}/{model.source}"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _why(error.__cause__, model)
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"{pinned} is not whole in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids "
            "fetching it: run this once without it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"params.yaml: model.revision {model.revision} is no commit of {model.source} ({page}/commits)"
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, model.source, page)
    if isinstance(error, UNREACHABLE):
        return (
            f"{pinned} is not whole in the cache ({constants.HF_HUB_CACHE}), and {constants.ENDPOINT} "
            "cannot be reached: check the network (and HF_ENDPOINT, if you set it), then run this again"
        )
    return f"{pinned}: the connection broke off. What has arrived is kept; run this again to go on from there"


def _refusal(error: HfHubHTTPError, source: str, page: str) -> str:
    tokens = f"{constants.ENDPOINT}/settings/tokens"
    match error.response.status_code, get_token() is not None:
        case 401, True:
            return (
                f"{source}: the hub does not know your token, which may be mistyped or expired: "
                f"make a new one at {tokens} and set HF_TOKEN to it"
            )
        case 401, False if isinstance(error, GatedRepoError):
            return (
                f"{source} is gated: accept its licence at {page}, make a token at {tokens} "
                "and set HF_TOKEN to it"
            )
        case (401, False) | (404, _):
            return (
                f"params.yaml: model.source '{source}' is not on the hub, or is private: check the name, and "
                f"that HF_TOKEN is set to a token ({tokens}) of an account that may read it"
            )
        case 403, _:
            return (
                f"{source}: your token has no access to it: accept its licence at {page} with the token's "
                "account; a fine-grained token must also allow reading gated repositories"
            )
        case status, _:
            return f"{source}: the hub answered with status {status}; try again later"
