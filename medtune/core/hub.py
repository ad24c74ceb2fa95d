"""Files of a repository of the hub at one commit: listed, fetched, each large download resumed and checked.

A gated repository needs a token in HF_TOKEN. With HF_HUB_OFFLINE nothing is requested. What stops a request
is told in words of our own, with what to do.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
from filelock import FileLock
from huggingface_hub import (
    HfApi,
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

UNREACHABLE = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    LocalEntryNotFoundError,
)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at a commit, and the keys of params.yaml that name it."""

    kind: Literal["model", "dataset"]
    name: str
    """What `medtune pin` knows it by: model, or the name of a source."""
    id: str
    revision: str | None
    key: str
    """Of its id, such as model.source; only named in errors, as is the next."""
    revision_key: str

    @property
    def page(self) -> str:
        """Where a person finds it."""
        folder = "datasets/" if self.kind == "dataset" else ""
        return f"{constants.ENDPOINT}/{folder}{self.id}"

    @property
    def pinned(self) -> str:
        """The commit in words."""
        return f"{self.id} at {self.revision}"

    @property
    def pin_command(self) -> str:
        """What writes its present commit into params.yaml."""
        return f"medtune pin {self.name}"


def require_pinned(repository: Repository) -> None:
    """Refuse a repository that no commit pins."""
    if repository.revision is None:
        raise MedtuneError(
            f"params.yaml: {repository.key} is the hub id '{repository.id}', so {repository.revision_key} "
            "must be the full commit hash (40 hex digits); a branch or tag can change. "
            f"`{repository.pin_command}` writes the present one"
        )


@contextmanager
def explained(repository: Repository) -> Iterator[None]:
    """What the hub or the network refuses in the block becomes a MedtuneError; a full disk does not."""
    try:
        yield
    except HFValidationError as error:
        raise MedtuneError(f"params.yaml: {repository.key} '{repository.id}': {error}") from None
    except (OSError, httpx2.HTTPError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise MedtuneError(why(error, repository)) from None


def snapshot(
    repository: Repository, names: list[str], ignored: list[str] | None = None, *, local: bool = False
) -> Path:
    """The folder with the files whose names match the patterns `names`; with `local` nothing is requested."""
    return Path(
        snapshot_download(
            repository.id,
            repo_type=repository.kind,
            revision=repository.revision,
            allow_patterns=names,
            ignore_patterns=ignored,
            local_files_only=local,
        )
    )


def listing(repository: Repository) -> set[str] | None:
    """The names of the commit's files, if the cache holds them; `snapshot_download` puts them there."""
    try:
        tree = get_cached_repo_tree(repository.id, repo_type=repository.kind, revision=repository.revision)
    except CachedRepoTreeNotFoundError:
        return None
    return {file.path for file in tree}


def in_cache(repository: Repository, name: str) -> Path | None:
    """Where the cache has a file of the commit; None if it has not."""
    found = try_to_load_from_cache(
        repository.id, name, repo_type=repository.kind, revision=repository.revision
    )
    return Path(found) if isinstance(found, str) else None


def ask(repository: Repository, name: str) -> None:
    """One request that is not repeated tells whether the hub, the token and the commit will do."""
    _require_token_of_letters()
    with suppress(RemoteEntryNotFoundError):
        answer = get_hf_file_metadata(_url(repository, name))
        if answer.commit_hash != repository.revision:
            raise MedtuneError(f"{constants.ENDPOINT} (HF_ENDPOINT) does not answer as a model hub does")


def present_commit(repository: Repository, reference: str | None) -> str:
    """The full hash of the commit that a branch, a tag or a commit is now; None is the main branch.

    MedtuneError: it cannot be asked for, or there is no such reference.
    """
    _require_token_of_letters()
    what = f"the present commit of {repository.id}"
    try:
        commit = HfApi().repo_info(repository.id, repo_type=repository.kind, revision=reference).sha
    except OfflineModeIsEnabled:
        raise MedtuneError(
            f"{what} is to be asked for, but HF_HUB_OFFLINE forbids that: run this without it"
        ) from None
    except RevisionNotFoundError:
        raise MedtuneError(
            f"{repository.id} has no branch, tag or commit '{reference}' ({repository.page}/commits)"
        ) from None
    except HFValidationError as error:
        raise MedtuneError(f"params.yaml: {repository.key} '{repository.id}': {error}") from None
    except HfHubHTTPError as error:
        raise MedtuneError(_refusal(error, repository)) from None
    except (OSError, httpx2.HTTPError):
        raise MedtuneError(
            f"{what} is to be asked for, but {constants.ENDPOINT} cannot be reached: check the network (and "
            "HF_ENDPOINT, if you set it), then run this again"
        ) from None
    if commit is None or re.fullmatch("[0-9a-f]{40}", commit) is None:
        raise MedtuneError(f"{constants.ENDPOINT} (HF_ENDPOINT) does not answer as a model hub does")
    return commit


def fetch_large(repository: Repository, names: Iterable[str]) -> None:
    """Fetch those of the files that are large into the cache, going on from where an earlier run stopped."""
    for name in names:
        _fetch_large(repository, name)


def _url(repository: Repository, name: str) -> str:
    return hf_hub_url(repository.id, name, repo_type=repository.kind, revision=repository.revision)


def _require_token_of_letters() -> None:
    if not (get_token() or "").isascii():
        raise MedtuneError("HF_TOKEN holds characters that no token has: copy it again")


def _fetch_large(repository: Repository, name: str) -> None:
    """Fetch a file that the hub states the sha256 of, which it does for large ones.

    huggingface_hub goes on after a broken connection, but deletes what it has when it gives up, and a killed
    run starts at zero. Nor does it compare the content with the hash that the hub states.
    """
    if in_cache(repository, name) is not None:
        return
    url = _url(repository, name)
    stated = get_hf_file_metadata(url)
    if stated.etag is None or re.fullmatch("[0-9a-f]{64}", stated.etag) is None:
        return
    cache = Path(constants.HF_HUB_CACHE)
    folder = repo_folder_name(repo_id=repository.id, repo_type=repository.kind)
    stored = cache / folder / "blobs" / stated.etag
    partial = stored.with_name(f"{stored.name}.incomplete")
    lock = cache / ".locks" / folder / f"{stated.etag}.lock"
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
            raise MedtuneError(f"{repository.id}: {name} arrived damaged and was deleted; run this again")
        partial.rename(stored)


def why(error: Exception, repository: Repository) -> str:
    """What stopped a download, and what to do. Never the library's own words: they may quote the request."""
    pinned = repository.pinned
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return why(error.__cause__, repository)
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"{pinned} is not whole in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids "
            "fetching it: run this once without it"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"params.yaml: {repository.revision_key} {repository.revision} is no commit of {repository.id} "
            f"({repository.page}/commits); `{repository.pin_command}` writes the present one"
        )
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repository)
    if isinstance(error, UNREACHABLE):
        return (
            f"{pinned} is not whole in the cache ({constants.HF_HUB_CACHE}), and {constants.ENDPOINT} "
            "cannot be reached: check the network (and HF_ENDPOINT, if you set it), then run this again"
        )
    return f"{pinned}: the connection broke off. What has arrived is kept; run this again to go on from there"


def _refusal(error: HfHubHTTPError, repository: Repository) -> str:
    tokens = f"{constants.ENDPOINT}/settings/tokens"
    match error.response.status_code, get_token() is not None:
        case 401, True:
            return (
                f"{repository.id}: the hub does not know your token, which may be mistyped or expired: "
                f"make a new one at {tokens} and set HF_TOKEN to it"
            )
        case 401, False if isinstance(error, GatedRepoError):
            return (
                f"{repository.id} is gated: accept its licence at {repository.page}, make a token at "
                f"{tokens} and set HF_TOKEN to it"
            )
        case (401, False) | (404, _):
            return (
                f"params.yaml: {repository.key} '{repository.id}' is not on the hub, or is private: check "
                f"the name, and that HF_TOKEN is set to a token ({tokens}) of an account that may read it"
            )
        case 403, _:
            return (
                f"{repository.id}: your token has no access to it: accept its licence at {repository.page} "
                "with the token's account; a fine-grained token must also allow reading gated repositories"
            )
        case status, _:
            return f"{repository.id}: the hub answered with status {status}; try again later"
