"""`medtune export FORMAT --publish ORG/NAME`: an export, as it was checked, into a repository of the hub.

What goes there is what `metrics/export.json` says has passed, to the byte. One commit, private unless asked
otherwise, with the token of the environment or of `hf auth login`, which is never printed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from medtune.core.errors import MedtuneError
from medtune.core.front_matter import split_card
from medtune.core.hashing import file_sha256
from medtune.core.outputs import read_json
from medtune.export.checked import Forms, describe_check, too_weak
from medtune.export.places import ADAPTER, CARD, EXPORT, METRICS, Format, folder_sha256, trained_sha256

NAMELESS = ("", "none", "unknown", "other")
"""What is no name of a licence."""


@dataclass(frozen=True)
class File:
    """A file that goes to the hub, by its path in the export."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Publication:
    """What would be pushed: the files of an export that has passed, and where to."""

    kind: Format
    repository: str
    files: list[File]
    card: str
    digest: str

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return EXPORT / self.kind


def planned(kind: Format, repository: str, *, anyway: bool = False) -> Publication:
    """What to push of a format; refuse what has not passed as it lies there, and what cannot be named.

    With `anyway` the check may have been of few questions, or have let much pass: the card says so.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if repository.count("/") != 1:
        raise MedtuneError("--publish names no repository of the hub; accepted: ORG/NAME")
    folder = EXPORT / kind
    if not folder.is_dir():
        raise MedtuneError(f"{folder}: not there; run `medtune export {kind}` first")
    digest = folder_sha256(folder)
    forms = _require_passed(kind, digest)
    card = (folder / CARD).read_text(encoding="utf-8")
    _require_told(folder / CARD, card, forms)
    if not anyway and (reason := too_weak(forms)):
        raise MedtuneError(
            f"{folder}: {reason}; run `medtune export {kind}` with more, or push it with --anyway"
        )
    _require_named(folder / CARD, card)
    files = [
        File(path.relative_to(folder).as_posix(), path.stat().st_size, file_sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return Publication(kind, repository, files, card, digest)


def publish(publication: Publication, *, public: bool = False) -> str:
    """Push it in one commit; returns the address of that commit.

    MedtuneError: no token, the hub refuses, or the repository is public and that was not asked for.
    """
    token = get_token()
    if token is None:
        raise MedtuneError("--publish: no token of the hub; set HF_TOKEN or run `hf auth login`")
    hub = HfApi(endpoint=constants.ENDPOINT, token=token)
    with _explained(publication.repository):
        hub.create_repo(publication.repository, private=not public, exist_ok=True)
        _require_private(hub, publication.repository, public=public)
        commit = hub.create_commit(
            publication.repository,
            [CommitOperationAdd(file.name, publication.folder / file.name) for file in publication.files],
            commit_message=f"medtune export {publication.kind}, sha256 {publication.digest[:12]}",
        )
    if folder_sha256(publication.folder) != publication.digest:
        raise MedtuneError(
            f"{publication.folder}: changed while it was pushed to {publication.repository}; run it again"
        )
    return commit.commit_url


def describe_publication(publication: Publication) -> str:
    """What a dry run shows: every file with its size and sha256, and the card."""
    width = max(len(file.name) for file in publication.files)
    rows = [f"  {file.name:<{width}}  {file.size:>13,}  {file.sha256}" for file in publication.files]
    total = sum(file.size for file in publication.files)
    head = f"to {publication.repository}: {len(publication.files)} files of {publication.folder}, {total:,} B"
    card = [f"  {line}".rstrip() for line in publication.card.splitlines()]
    return "\n".join([head, *rows, "", "the card:", "", *card])


def _require_passed(kind: Format, digest: str) -> Forms:
    """What the export was off by, if it has passed as it lies there, and is of the adapter that is here."""
    try:
        content = read_json(METRICS)
        checked = content["formats"][kind]
        passed, sha256, trained, forms = (
            checked["passed"],
            checked["sha256"],
            content["trained"],
            checked["forms"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise MedtuneError(f"{METRICS}: has no check of {kind}; run `medtune export {kind}`") from None
    if sha256 != digest:
        raise MedtuneError(
            f"{EXPORT / kind}: not the files that {METRICS} has a check of; run `medtune export {kind}`"
        )
    if passed is not True:
        raise MedtuneError(f"{METRICS}: {kind} has not passed its check; nothing is published")
    if not ADAPTER.is_dir():
        raise MedtuneError(f"{ADAPTER}: not there, which {EXPORT / kind} was made from; run `dvc pull`")
    if trained != trained_sha256():
        raise MedtuneError(
            f"{ADAPTER}: another adapter or card than {EXPORT / kind} was made from; run "
            f"`medtune export {kind}`"
        )
    return forms


def _require_told(path: Path, card: str, forms: Forms) -> None:
    """Refuse a card that says of the check what metrics/export.json does not."""
    try:
        told = describe_check(forms) in card
    except (KeyError, TypeError, ValueError, AttributeError):
        told = False
    if not told:
        raise MedtuneError(f"{path}: does not tell of the check in {METRICS}; run `medtune export` again")


def _require_named(path: Path, card: str) -> None:
    """Refuse a card that names no base model or no licence: nobody could tell what may be done with it."""
    try:
        front, _ = split_card(card)
    except ValueError:
        raise MedtuneError(f"{path}: has no front matter; run `medtune export` again") from None
    licence = str(front.get("license_name") or front.get("license") or "")
    if not front.get("base_model"):
        raise MedtuneError(
            f"{path}: names no base model; set export.base_model in params.yaml (org/name) and export again"
        )
    if licence.lower() in NAMELESS:
        raise MedtuneError(
            f"{path}: its licence is '{licence}'; model.license in params.yaml is to name the base's"
        )


def _require_private(hub: HfApi, repository: str, *, public: bool) -> None:
    """Refuse to push into what everybody reads, unless that is wanted."""
    if not public and not hub.repo_info(repository).private:
        raise MedtuneError(
            f"{repository} is public on the hub; push there with --public, or take another name"
        )


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """What the hub or the network refuses, in one line."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise MedtuneError(
                f"{repository}: the hub does not let this token write there; accepted: one that may write"
            ) from None
        said = error.server_message or f"status {status}"
        raise MedtuneError(f"{repository}: the hub refuses: {' '.join(said.split())}") from None
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        raise MedtuneError(f"{repository}: could not be pushed: {type(error).__name__}") from None
    except ValueError as error:
        raise MedtuneError(f"{repository}: {' '.join(str(error).split())}") from None
