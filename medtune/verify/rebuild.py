"""A commit run again from nothing, in a clean clone, by `medtune attest --rebuild`.

The clone has what git has, the user's own data, and caches of its own: DVC's, that of converted models, and
the progress of stages. What the commit has of outputs is deleted before it runs. So whatever lies there
afterwards was made there.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from dvc.repo import Repo

from medtune.core.errors import Interrupted, MedtuneError
from medtune.core.outputs import ENVIRONMENT_FILE
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.data.tracking import PIPELINE_FILE, declared_files
from medtune.run.lock_file import LOCK_FILE, dvc_md5, entries, read_lock
from medtune.verify.remade import json_file, require_equal
from medtune.verify.rerun import own_variables, require_all_ran, run_all
from medtune.verify.statement import CODE_STAGE, Facts, facts_of

Stages = dict[str, Any]


@dataclass(frozen=True)
class Rebuilt:
    """What came out of a commit: its facts, the stages that ran, when, and where each ran.

    `differing` are outputs with other bytes than the commit's dvc.lock names.
    """

    facts: Facts
    ran: list[str]
    times: tuple[str, str]
    environment: dict[str, Any]
    differing: list[str]


def rebuild(commit: str, output: TextIO) -> Rebuilt:
    """Run every stage of a commit of this repository in a clone; what they print goes to `output`."""
    with TemporaryDirectory(prefix="medtune-rebuild-") as temporary:
        clone, outside = Path(temporary).resolve() / "medtune", Path(temporary)
        try:
            return _rebuild(commit, clone, outside, output)
        except KeyboardInterrupt:
            raise Interrupted("nothing was signed, and the clone is deleted: a rebuild starts anew") from None


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rebuild(commit: str, clone: Path, outside: Path, output: TextIO) -> Rebuilt:
    started = now()
    _clone(commit, clone)
    committed = read_lock(clone / LOCK_FILE)
    _bring_data(clone)
    _bring_model(clone)
    _require_inputs(clone, committed)
    _delete_outputs(clone, committed)
    variables = {"MEDTUNE_CACHE": str(outside / "models")}
    ran = run_all(clone, outside, output, variables)
    require_all_ran(committed, ran)
    made = read_lock(clone / LOCK_FILE)
    require_equal(f"{LOCK_FILE} of the commit, by a run of it", _asked(committed), _asked(made))
    _require_chain(clone, own_variables() | variables)
    return Rebuilt(
        facts=facts_of(clone),
        ran=ran,
        times=(started, now()),
        environment=json_file(clone / ENVIRONMENT_FILE),
        differing=_differing(committed, made),
    )


def _clone(commit: str, clone: Path) -> None:
    """What git has of a commit, with nothing of the working tree and no hooks."""
    # Variables of a git hook would send the commands below to the repository that it belongs to.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for command in (
        ["git", "clone", "--quiet", "--no-checkout", "--template=", str(Path.cwd()), str(clone)],
        ["git", "-C", str(clone), "checkout", "--quiet", "--detach", commit],
    ):
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode != 0:
            raise MedtuneError(f"no clone of {commit[:12]}: {' '.join(done.stderr.split())}")


def _bring_data(clone: Path) -> None:
    """The user's own data, which git ignores: from here, where DVC has it."""
    for name in declared_files(clone / PIPELINE_FILE):
        if (clone / name).exists():
            continue
        if not Path(name).is_file():
            raise MedtuneError(f"{name}: not there; run: dvc pull {name}")
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, clone / name)


def _bring_model(clone: Path) -> None:
    """A base model in a folder that is named from here and that git does not have."""
    source = str(read_yaml(clone / PARAMS_FILE)["model"]["source"])
    if source.startswith(("./", "../")) and not (clone / source).exists():
        (clone / source).parent.mkdir(parents=True, exist_ok=True)
        (clone / source).symlink_to(Path(source).resolve())


def _require_inputs(clone: Path, lock: Stages) -> None:
    """Refuse, before anything runs, parameters and inputs that are not those of the commit's dvc.lock."""
    params = read_yaml(clone / PARAMS_FILE)
    for name, stage in lock.items():
        recorded = stage["params"].get(PARAMS_FILE.name, {})
        here = {section: params.get(section) for section in recorded}
        require_equal(f"{PARAMS_FILE} of the commit, by what {LOCK_FILE} has for {name}", here, recorded)
    made = {entry.path for entry in entries(lock) if entry.role == "outs"}
    with Repo(str(clone)) as repo:
        for entry in entries(lock):
            if entry.path in made:
                continue
            if (found := dvc_md5(clone / entry.path, repo.dvcignore.is_ignored_file)) != entry.md5:
                raise MedtuneError(
                    f"{entry.path}: its md5 is {found}, but {LOCK_FILE} of the commit has {entry.md5} "
                    f"({entry.stage}): run `dvc repro` and commit what it leaves"
                )


def _delete_outputs(clone: Path, lock: Stages) -> None:
    for entry in entries(lock):
        place = clone / entry.path
        if entry.role == "outs" and place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        elif entry.role == "outs":
            place.unlink(missing_ok=True)
    (clone / LOCK_FILE).unlink()
    # Where and when the committed run was made: what is there afterwards is to be of this one.
    for name in ("timing", "environment"):
        (clone / f"metrics/{name}.json").unlink(missing_ok=True)


def _asked(lock: Stages) -> dict[str, Any]:
    """What a lock says of each stage but for the bytes that were made: command, parameters, inputs, paths.

    The digests of the code count as inputs: they are the same wherever it runs.
    """
    made = {entry.path for entry in entries(lock) if entry.role == "outs" and entry.stage != CODE_STAGE}
    return {
        name: {"cmd": stage["cmd"], "params": stage["params"]}
        | {
            role: {item["path"]: None if item["path"] in made else item["md5"] for item in stage[role]}
            for role in ("deps", "outs")
        }
        for name, stage in lock.items()
    }


def _differing(committed: Stages, made: Stages) -> list[str]:
    before, after = (
        {entry.path: entry.md5 for entry in entries(lock) if entry.role == "outs"}
        for lock in (committed, made)
    )
    return sorted(path for path in before | after if before.get(path) != after.get(path))


def _require_chain(clone: Path, variables: dict[str, str]) -> None:
    """Refuse outputs that the commit's own `medtune verify` finds to be of other inputs."""
    command = [sys.executable, "-m", "medtune.commands.cli", "verify", "--json"]
    done = subprocess.run(command, cwd=clone, env=variables, capture_output=True, text=True)
    try:
        broken = [link for link in json.loads(done.stdout)["links"] if link["broken"]]
    except (ValueError, KeyError, TypeError):
        broken = []
    if broken:
        raise MedtuneError(f"the rebuilt chain is broken: {broken[0]['name']}: {broken[0]['broken']}")
    if done.returncode != 0:
        raise MedtuneError(f"`medtune verify` of the clone failed: {' '.join(done.stderr.split())}")
