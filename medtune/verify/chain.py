"""`medtune verify`: whether each link from the data to the metrics holds.

A link is computed anew from what it starts with, and compared with what is there
(medtune/verify/remade.py). Only training and answering are taken on trust: that these questions and
parameters gave these checkpoints, and that the models said what stands in the answers.
`medtune verify --rerun` (medtune/verify/rerun.py) repeats both.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from medtune.core.errors import MedtuneError
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.data.params import DataParams
from medtune.data.tracking import require_declared
from medtune.run.code import DIGESTS, digest, entry_points, is_quantised
from medtune.run.lock_file import LOCK_FILE, ROLES, dvc_md5, entries, read_lock
from medtune.run.shadowing import ROOT, require_no_shadows
from medtune.run.shipped import SHIPPED
from medtune.verify.remade import (
    check_adapter,
    check_answers,
    check_record,
    check_training,
    json_file,
    require_equal,
    run_again,
)

PIPELINE_FILE = Path("dvc.yaml")
ON_TRUST = (
    "taken on trust: that the training gave these checkpoints, and that the models gave these answers; "
    "`medtune verify --rerun` repeats both"
)


@dataclass(frozen=True)
class Link:
    """A link of the chain; `broken` says where it is broken, or is None.

    `by_parameters`: it is, but holds with the parameters of dvc.lock in place of those that are here.
    """

    name: str
    broken: str | None
    by_parameters: bool = False


def verify_chain(watch: Callable[[str], None] = lambda _: None) -> list[Link]:
    """Check every link of the repository in the current folder; `watch` is told of each before it is."""
    links: list[Link] = []
    for name, check in LINKS.items():
        watch(f"verifying, {len(links) + 1} of {len(LINKS)}: {name}")
        links.append(Link(name, _reason(check)))
    if next(link.broken for link in links if link.name == PARAMETERS) is None:
        return links
    broken = [link.name for link in links if link.broken and LINKS[link.name] not in OF_DVC]
    follow = _hold_as_recorded(broken) if broken else set()
    return [replace(link, by_parameters=link.name in follow) for link in links]


def describe_broken(links: Sequence[Link]) -> str | None:
    """How many links are broken, and that parameters are the cause where they are; None if all hold."""
    broken = [link for link in links if link.broken]
    if not broken:
        return None
    follow = sum(link.by_parameters for link in broken)
    said = f"{len(broken)} of {len(links)} links are broken"
    if not follow:
        return said
    return (
        f"{said}, {follow} of them only because {PARAMS_FILE} was edited since the run: run `dvc repro`, or "
        f"take the edit back"
    )


def describe_links(links: Sequence[Link], changed: Sequence[str]) -> str:
    """What `medtune verify` prints; `changed` are the files that are not as committed."""
    lines = []
    for link in links:
        lines.append(f"{'BROKEN' if link.broken else 'holds ':<7}{link.name}")
        lines += [f"       {link.broken}"] if link.broken else []
        lines += [f"       (follows from {PARAMS_FILE}, above)"] if link.by_parameters else []
    if changed:
        lines.append(f"note: not as committed: {', '.join(changed)}")
    told = describe_broken(links) or f"all {len(links)} links hold"
    made = f", and the work of {' and '.join(added)}, which no link looks at" if (added := _added()) else ""
    return "\n".join([*lines, f"{told}; {ON_TRUST}{made}"])


def _added() -> list[str]:
    """Stages of dvc.lock beside the shipped ones, of which no link says what they have to make."""
    try:
        return [name for name in read_lock() if name not in SHIPPED]
    except MedtuneError:
        # It stands among the links that are broken.
        return []


def require_own_code() -> None:
    """Refuse to verify a commit with the code of another."""
    if Path.cwd().resolve() != ROOT:
        raise MedtuneError(f"Python imports medtune from {ROOT}, not from this folder; run it in that one")


def _reason(check: Callable[[], None]) -> str | None:
    try:
        # What a stage's code has to say while it works is no business of whoever asks whether it holds.
        with redirect_stdout(StringIO()):
            check()
    except MedtuneError as error:
        return str(error)
    except FileNotFoundError as error:
        return f"{error.filename}: not there; run `dvc pull` to fetch it or `dvc repro` to make it"
    except Exception as error:
        # Files that were tampered with can make their readers raise anything.
        return f"not readable: {' '.join(f'{type(error).__name__}: {error}'.split())}"
    return None


def _hold_as_recorded(names: Sequence[str]) -> set[str]:
    """Those of the links that hold in a folder of what is here but for params.yaml, as dvc.lock has it."""
    try:
        recorded: dict[str, Any] = read_yaml(PARAMS_FILE)
        for stage in read_lock().values():
            recorded |= stage["params"].get(PARAMS_FILE.name, {})
    except (MedtuneError, KeyError, TypeError, AttributeError):
        return set()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in Path.cwd().iterdir():
            if path.name != PARAMS_FILE.name:
                (folder / path.name).symlink_to(path)
        # JSON is YAML: what DVC reads of it is what it has recorded.
        (folder / PARAMS_FILE).write_text(json.dumps(recorded, ensure_ascii=False), encoding="utf-8")
        with chdir(folder):
            return {name for name in names if _reason(LINKS[name]) is None}


def _stages() -> None:
    """dvc.lock has the stages of dvc.yaml, each with its command, its parameters and its paths."""
    with Repo() as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo == str(PIPELINE_FILE)]
        declared = {stage.name: _declared(stage) for stage in stages}
        shown = repo.metrics.show()[""]["data"]
    recorded = {name: _recorded(stage) for name, stage in read_lock().items()}
    if gone := sorted(recorded.keys() - declared.keys()):
        # DVC keeps what it has recorded of a stage that was renamed or taken out.
        raise MedtuneError(f"{LOCK_FILE}: has '{gone[0]}', a stage that {PIPELINE_FILE} lacks: delete it")
    require_equal(LOCK_FILE, recorded, declared)
    require_declared(DataParams.load())
    made = {path for stage in declared.values() for path in stage["outs"]}
    for path in sorted(shown):
        if not made & {path, *map(str, Path(path).parents)}:
            raise MedtuneError(f"{path}: no stage makes it, but `dvc metrics show` has it: take it out")


def _declared(stage: Any) -> dict[str, Any]:
    params = [dependency for dependency in stage.deps if isinstance(dependency, ParamsDependency)]
    return {
        "cmd": stage.cmd,
        "params": {dependency.def_path: sorted(dependency.params) for dependency in params},
        "deps": sorted(dependency.def_path for dependency in stage.deps if dependency not in params),
        "outs": sorted(out.def_path for out in stage.outs),
    }


def _recorded(stage: dict[str, Any]) -> dict[str, Any]:
    params = {file: sorted(values) for file, values in stage["params"].items()}
    paths = {role: sorted(item["path"] for item in stage[role]) for role in ROLES}
    return {"cmd": stage["cmd"], "params": params} | paths


def _parameters() -> None:
    here = read_yaml(PARAMS_FILE)
    for name, stage in read_lock().items():
        recorded = stage["params"].get(PARAMS_FILE.name, {})
        found = {section: here.get(section) for section in recorded}
        require_equal(f"{PARAMS_FILE}, by what {LOCK_FILE} has for {name}", found, recorded)


def _files() -> None:
    hashes: dict[str, str] = {}
    with Repo() as repo:
        for entry in entries(read_lock()):
            if entry.path not in hashes:
                hashes[entry.path] = dvc_md5(Path(entry.path), repo.dvcignore.is_ignored_file)
            if (found := hashes[entry.path]) != entry.md5:
                raise MedtuneError(
                    f"{entry.path}: its md5 is {found}, but {LOCK_FILE} has {entry.md5} ({entry.stage})"
                )


def _joints() -> None:
    known = list(entries(read_lock()))
    made = {entry.path: entry for entry in known if entry.role == "outs"}
    for entry in known:
        source = made.get(entry.path, entry)
        if source.md5 != entry.md5:
            raise MedtuneError(f"{entry.stage} read another {entry.path} than {source.stage} wrote")


def _code() -> None:
    require_no_shadows()
    quantised = is_quantised(read_yaml(PARAMS_FILE))
    for module in entry_points(Path.cwd()):
        path = DIGESTS / f"{module}.json"
        meaning = digest(f"stages.{module}", quantised=quantised, root=Path.cwd())
        require_equal(f"{path}, by the code that is here", json_file(path), meaning)


PARAMETERS = "the parameters are those of dvc.lock"
LINKS: dict[str, Callable[[], None]] = {
    "dvc.lock has the stages of dvc.yaml": _stages,
    PARAMETERS: _parameters,
    "every file is the one that dvc.lock names": _files,
    "the stages of dvc.lock join": _joints,
    "code -> digests": _code,
    "source -> questions and their counts": partial(run_again, "prepare"),
    "questions, code, parameters, base model -> record": check_record,
    "best checkpoint -> adapter": check_adapter,
    "checkpoints -> training metrics and curves": check_training,
    "questions, adapter, base model -> answers": check_answers,
    "answers -> metrics, results and card": partial(run_again, "evaluate"),
}
OF_DVC = (_stages, _parameters, _files, _joints)
"""Checks of what DVC has recorded; all others read params.yaml too, and may break with it."""
