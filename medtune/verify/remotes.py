"""What DVC leaves to its users about a remote: whether its bytes are right, and runs that others can reuse.

`dvc push` looks at names only, remembers those it pushed, and takes the files of a folder for granted once
the folder's list is there. So it mends neither an object that was damaged in the remote nor one that was
lost. `medtune check-remote` reads every object back and hashes it.

`dvc push --run-cache` sends the list of runs, but not the metrics of a run: they stand in git and are not
pushed. So no stage that has metrics could be reused elsewhere. `medtune push-runs` sends those too.

A cloud-versioned remote (`version_aware` or `worktree`) holds files under their own names, with no hash in
them: neither works there, and DVC 3.67 spoils `dvc.lock` when it pushes to one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dvc.repo import Repo
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.tree import Tree

from medtune.core.errors import MedtuneError


@dataclass(frozen=True)
class RemoteObject:
    """A file's content, or a folder's list of files, as a remote holds it."""

    path: str
    hash: str
    state: str
    """whole, missing or damaged"""


@dataclass(frozen=True)
class Holding:
    """What of this commit's outputs, by path, could be had here: from this machine's cache or from a remote.

    `made` are those of the lacking ones that a stage makes; others (.dvc files) are the user's own data.
    `unknown` are outputs of which dvc.lock has no hash, as their stage has not run since it was changed.
    """

    remote: str
    place: str
    is_there: bool
    has: list[str]
    lacks: list[str]
    made: list[str]
    unknown: list[str]


def compare_with_remote(name: str | None = None) -> Holding | None:
    """Look, by name alone, for every output of the commit in the cache and a remote; None if cloud-versioned.

    A remote remembers nothing and DVC's own list of it may be stale, so the remote itself is asked.
    """
    try:
        with Repo() as repo:
            remote = repo.cloud.get_remote(name, command="pull")
            if remote.worktree or remote.fs.version_aware:
                return None
            return _held(repo, remote)
    except Exception as error:
        raise MedtuneError(f"remote {name or '(default)'}: {error}") from None


def check_remote(
    name: str | None = None, watch: Callable[[str], None] = lambda _: None
) -> list[RemoteObject]:
    """Read every object that the outputs of the repository in the current folder name.

    `watch` is told of each that was read.
    """
    found = []
    with _remote(name) as (repo, odb):
        for entry in _objects(repo, odb):
            found.append(entry)
            watch(f"read {len(found)} objects of the remote; the last: {entry.path}")
    return found


def mend_remote(name: str | None = None) -> None:
    """Write anew what is damaged or missing in a remote, as far as this machine's cache has it whole."""
    with _remote(name) as (repo, odb):
        cache = repo.cache.local
        for found in list(_objects(repo, odb)):
            path, content = found.path, found.hash
            if found.state == "whole" or _object(cache, path, content).state != "whole":
                continue
            if found.state == "damaged":
                odb.fs.remove(odb.oid_to_path(content))
            odb.add(cache.oid_to_path(content), cache.fs, content, check_exists=False)


def push_runs(name: str | None = None) -> int:
    """Push what every stage made of any inputs so far; returns the number of runs.

    Elsewhere, `dvc pull --run-cache` and `dvc repro --pull` then fetch a result instead of making it.
    """
    with _remote(name) as (repo, _):
        runs = repo.stage_cache.push(name)
        for objects in repo.stage_cache.get_used_objs(runs).values():
            repo.cloud.push(objects, remote=name)
        return len(runs)


@contextmanager
def _remote(name: str | None) -> Iterator[tuple[Any, HashFileDB]]:
    try:
        with Repo() as repo:
            remote = repo.cloud.get_remote(name, command="push")
            if remote.worktree or remote.fs.version_aware:
                raise MedtuneError(
                    f"remote {remote.name}: cloud-versioned (version_aware or worktree), so its files "
                    "have no hashes for names to check or to reuse them by; accepted: a remote without these "
                    "options (docs/remotes.md). `medtune verify` checks what `dvc pull` brought from one"
                )
            yield repo, remote.odb
    except MedtuneError:
        raise
    except Exception as error:
        # Every kind of storage has a library, and exceptions, of its own.
        raise MedtuneError(f"remote {name or '(default)'}: {error}") from None


def _held(repo: Any, remote: Any) -> Holding:
    outs = [out for out in repo.index.outs if out.use_cache and out.hash_info]
    unknown = [out for out in repo.index.outs if out.use_cache and not out.hash_info]
    has, lacks = list[Any](), list[Any]()
    for out in outs:
        (has if _can_be_had(out.hash_info, (repo.cache.local, remote.odb)) else lacks).append(out)
    return Holding(
        remote.name,
        str(remote.path),
        bool(remote.fs.exists(remote.path)),
        [str(out) for out in has],
        [str(out) for out in lacks],
        [str(out) for out in lacks if out.stage.cmd],
        [str(out) for out in unknown],
    )


def _can_be_had(wanted: Any, places: tuple[HashFileDB, HashFileDB]) -> bool:
    """Whether each file of an output is in one of the places; of a folder it is its list that names them."""
    source = next((place for place in places if place.exists(wanted.value)), None)
    if source is None or not wanted.isdir:
        return source is not None
    files = {entry.value for _, _, entry in Tree.load(source, wanted)}
    for place in places:
        files -= set(place.oids_exist(files)) if files else set()
    return not files


def _objects(repo: Any, odb: HashFileDB) -> Iterator[RemoteObject]:
    for out in repo.index.outs:
        if not out.use_cache or not out.hash_info:
            continue
        top = _object(odb, str(out), out.hash_info.value)
        yield top
        if out.hash_info.isdir:
            # A list that is lost in the remote may still be here, and its files there.
            for source in (odb, repo.cache.local):
                if _object(source, top.path, top.hash).state == "whole":
                    for key, _, entry in Tree.load(source, out.hash_info):
                        yield _object(odb, "/".join([str(out), *key]), entry.value)
                    break


def _object(odb: HashFileDB, path: str, name: str) -> RemoteObject:
    try:
        digest = file_md5(odb.oid_to_path(name), odb.fs)
    except FileNotFoundError:
        return RemoteObject(path, name, "missing")
    return RemoteObject(path, name, "whole" if digest == name.removesuffix(".dir") else "damaged")
