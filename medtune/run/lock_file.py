"""Reading `dvc.lock`: what each stage read and wrote, by hash."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import read_yaml

LOCK_FILE = Path("dvc.lock")
ROLES = ("deps", "outs")


@dataclass(frozen=True)
class Entry:
    """A file or folder of a stage; `role` is "deps" or "outs"."""

    stage: str
    role: str
    path: str
    md5: str


def read_lock(path: Path = LOCK_FILE) -> dict[str, Any]:
    """The stages of a lock file, each with `cmd`, `params` by file, `deps` and `outs` (path, md5)."""
    if not path.is_file():
        raise MedtuneError(f"{path}: no such file; run `dvc repro`, or check out a commit that has one")
    content = read_yaml(path)
    try:
        return {str(name): _stage(stage) for name, stage in content["stages"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise MedtuneError(
            f"{path}: not as DVC writes it; run `dvc repro`, or check out a commit that has it whole"
        ) from None


def entries(stages: dict[str, Any]) -> Iterator[Entry]:
    """Every dependency and output of every stage."""
    for name, stage in stages.items():
        for role in ROLES:
            for item in stage[role]:
                yield Entry(name, role, item["path"], item["md5"])


def dvc_md5(path: Path, is_ignored: Callable[[str], bool] = lambda _: False) -> str:
    """The hash that DVC gives a file or folder: of a folder, that of the JSON list of its files.

    `is_ignored` says of a file's path whether `.dvcignore` leaves it out.
    """
    if path.is_file():
        return _file_md5(path)
    if not path.is_dir():
        raise MedtuneError(f"{path}: not there; run `dvc pull` to fetch it or `dvc repro` to make it")
    files = (file for file in path.rglob("*") if file.is_file() and not is_ignored(str(file)))
    return folder_md5({file.relative_to(path).as_posix(): _file_md5(file) for file in files})


def _stage(stage: dict[str, Any]) -> dict[str, Any]:
    items = {role: [_item(item) for item in stage.get(role, [])] for role in ROLES}
    params = {file: dict(values) for file, values in stage.get("params", {}).items()}
    return {"cmd": stage.get("cmd"), "params": params} | items


def _item(item: dict[str, Any]) -> dict[str, str]:
    path = str(item["path"])
    if "files" in item:
        # Pushed to a cloud-versioned remote, a folder is the list of its files and has no hash itself.
        files = {str(file["relpath"]): str(file["md5"]) for file in item["files"]}
        return {"path": path, "md5": folder_md5(files)}
    if "md5" not in item:
        raise MedtuneError(
            f"{LOCK_FILE}: has no hash for {path}, as after `dvc push` to a cloud-versioned remote "
            "(docs/remotes.md); run `dvc repro`"
        )
    return {"path": path, "md5": str(item["md5"])}


def folder_md5(files: dict[str, str]) -> str:
    """The hash that DVC gives a folder, from the hashes of its files by their paths in it."""
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return f"{_md5(json.dumps(listing, sort_keys=True).encode())}.dir"


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
