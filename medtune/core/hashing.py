"""SHA-256 of files and folders, the check of a pinned value, and choices made by hash."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from medtune.core.errors import MedtuneError


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(paths: Iterable[Path], base: Path) -> str:
    """Hex digest over several files: the names relative to `base`, sorted, each with its own digest."""
    names = sorted(path.relative_to(base).as_posix() for path in paths)
    listing = "".join(f"{file_sha256(base / name)}  {name}\n" for name in names)
    return hashlib.sha256(listing.encode()).hexdigest()


def content_sha256(paths: Iterable[Path], base: Path) -> str:
    """Hex digest of one file's bytes, or over several as `files_sha256` has it."""
    files = sorted(set(paths))
    return file_sha256(files[0]) if len(files) == 1 else files_sha256(files, base)


def unit_hash(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def check_sha256(path: Path, expected: str | None, key: str) -> None:
    """Refuse a file whose digest is not the one that `params.yaml` pins under `key`."""
    require_sha256(str(path), file_sha256(path), expected, key)


def require_sha256(what: str, found: str, expected: str | None, key: str) -> None:
    """Refuse a digest that is not the pinned one; the message holds the digest found."""
    if expected is None:
        raise MedtuneError(f"params.yaml: {key} is missing; for {what} it is {found}")
    if found != expected:
        raise MedtuneError(f"{what}: its sha256 is {found}, but {key} in params.yaml says {expected}")
