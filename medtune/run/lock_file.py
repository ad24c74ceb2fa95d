"""Reading `dvc.lock`: what each stage read and wrote, by hash."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import read_yaml

LOCK_FILE = Path("dvc.lock")


@dataclass(frozen=True)
class Entry:
    """A file or folder of a stage; `role` is "deps" or "outs"."""

    stage: str
    role: str
    path: str
    md5: str


def read_lock(path: Path = LOCK_FILE) -> dict[str, Any]:
    """The stages of a lock file."""
    if not path.is_file():
        raise MedtuneError(f"{path}: no such file; run `dvc repro`, or check out a commit that has one")
    return read_yaml(path)["stages"]


def entries(stages: dict[str, Any]) -> Iterator[Entry]:
    """Every dependency and output of every stage."""
    for name, stage in stages.items():
        for role in ("deps", "outs"):
            for item in stage.get(role, []):
                yield Entry(name, role, item["path"], item["md5"])


def dvc_md5(path: Path) -> str:
    """The hash that DVC gives a file or folder: of a folder, that of the JSON list of its files."""
    if path.is_file():
        return _md5(path.read_bytes())
    if not path.is_dir():
        raise MedtuneError(f"{path}: not there; run `dvc pull` to fetch it or `dvc repro` to make it")
    listing = [
        {"md5": _md5(file.read_bytes()), "relpath": file.relative_to(path).as_posix()}
        for file in path.rglob("*")
        if file.is_file()
    ]
    listing.sort(key=lambda item: item["relpath"])
    return f"{_md5(json.dumps(listing, sort_keys=True).encode())}.dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
