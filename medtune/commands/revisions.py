"""The predictions of a commit, an experiment or the workspace: from DVC's cache or remote, and vouched for.

A commit may hold a `dvc.lock` of other parameters or other code than its own: somebody edited, did not run,
and committed. Its predictions are then those of no state of the repository, and are refused.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.dependency import Dependency, ParamsDependency
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import GitFileSystem
from dvc.output import Output
from dvc.repo import Repo
from dvc.scm import SCMError, resolve_rev
from dvc.stage import PipelineStage

from medtune.commands.repository import PREDICTION_FILES as FILES
from medtune.commands.text_file import read_file
from medtune.core.errors import MedtuneError
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml
from medtune.data.tracking import RAW_FOLDER
from medtune.evaluate.prediction_files import Given, read_results
from medtune.evaluate.seeds import SEEDS_FILE, Seeds, parse_seeds, read_seeds, seeds_fingerprint
from medtune.run.code import PAGE_SUFFIXES, digest, is_quantised
from medtune.run.lock_file import LOCK_FILE

RESULTS = "metrics/evaluation_results.json"
WORKSPACE = "workspace"
CODE_STAGE = "code"
READ_AS_CODE = ("medtune", "stages", "requirements/runtime.txt")
"""What the digest files are made of."""


def read_predictions(name: str) -> list[Given]:
    """Those of a file of predictions, of a revision (also an experiment), or of the workspace."""
    if name.endswith(FILES):
        return read_results(read_file(Path(name)), name)
    shown = RESULTS if name == WORKSPACE else f"{name}: {RESULTS}"
    return read_results(_of_revision(name), shown)


def read_seeds_of(*names: str) -> Seeds | None:
    """How far figures scatter between seeds (`medtune seeds`), if it was measured for one of these runs."""
    found = [_seeds_of(name) for name in names if not name.endswith(FILES)]
    return next((seeds for seeds in found if seeds), None)


def _seeds_of(name: str) -> Seeds | None:
    """Those of the run's commit, or of the workspace: it may have been measured later."""
    with Repo() as repo:
        revision = name if name == WORKSPACE else resolve_rev(repo.scm, name)
        with repo.switch(revision):
            lock = repo.fs.join(repo.root_dir, str(LOCK_FILE))
            stages = parse_yaml(_text(repo, lock), LOCK_FILE)["stages"]
            path = repo.fs.join(repo.root_dir, str(SEEDS_FILE))
            there = parse_seeds(_text(repo, path), f"{name}: {SEEDS_FILE}") if repo.fs.exists(path) else None
    wanted = seeds_fingerprint(stages)
    return next((one for one in (there, read_seeds()) if one and one.fingerprint == wanted), None)


def _of_revision(name: str) -> str:
    try:
        with Repo() as repo:
            revision = name if name == WORKSPACE else resolve_rev(repo.scm, name)
            if Path(repo.root_dir) != Path.cwd():
                raise MedtuneError(f"run this in the top folder of the repository ({PARAMS_FILE} is there)")
            with repo.switch(revision):
                return _recorded(repo, name)
    except NotDvcRepoError:
        _require_no_file(name)
        raise MedtuneError(
            f"'{name}' is no file of predictions ({', '.join(FILES)}), and here is no repository: run this "
            "in the top folder of one, or name two files"
        ) from None
    except SCMError:
        _require_no_file(name)
        raise MedtuneError(
            f"'{name}' is no commit, branch, tag or experiment here (`medtune runs` lists them), no file "
            f"({', '.join(FILES)}), and not `{WORKSPACE}`"
        ) from None
    except DvcException as error:
        raise MedtuneError(f"DVC cannot read {name}: {' '.join(str(error).split())}") from None


def _require_no_file(name: str) -> None:
    """Raise MedtuneError for a file whose name does not say that it has predictions."""
    if Path(name).is_file():
        raise MedtuneError(
            f"{name}: not called what a file of predictions is: .jsonl (one object a line), or .json (as "
            "`evaluate` writes it); rename it"
        ) from None


def _recorded(repo: Repo, name: str) -> str:
    """The text of the predictions that `dvc.lock` names at the revision that is switched to."""
    outputs = {output.fs_path: output for output in repo.index.outs}
    found = next((one for path, one in outputs.items() if path.endswith(f"/{RESULTS}")), None)
    if found is None or not found.hash_info:
        raise MedtuneError(f"{name}: has no {RESULTS}: its pipeline has not run; run `dvc repro` there")
    if stale := [*_not_its_own(repo, found.stage, outputs, set()), *_other_params(repo)]:
        raise MedtuneError(
            f"{name}: {RESULTS} is not of its {stale[0]}, which changed after the run; "
            + ("run `dvc repro`" if name == WORKSPACE else f"run `dvc repro` on it (git checkout {name})")
        )
    content = _content(repo, found, name)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != found.hash_info.value:
        hint = "run `dvc repro`" if name == WORKSPACE else "`medtune check-remote` says what is damaged"
        raise MedtuneError(f"{name}: {RESULTS} is not what its dvc.lock names; {hint}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise MedtuneError(f"{name}: {RESULTS} is not UTF-8 text") from None


def _content(repo: Repo, output: Output, name: str) -> bytes:
    fetch = "dvc pull" if name == WORKSPACE else f"git checkout {name} && dvc pull"
    missing = MedtuneError(
        f"{name}: {RESULTS} is neither here nor in the cache or the remote; where the run was made, run "
        f"`dvc push`, then here `{fetch}`"
    )
    try:
        if name == WORKSPACE:
            return Path(output.fs_path).read_bytes()
        with repo.dvcfs.open(repo.dvcfs.from_os_path(output.fs_path), "rb") as file:
            return file.read()
    except (OSError, DvcException):
        raise missing from None


def _not_its_own(
    repo: Repo, stage: PipelineStage, outputs: dict[str, Output], seen: set[str]
) -> Iterator[str]:
    """What a stage, or one whose outputs it reads, depends on and is not what its run has read.

    What is in `seen` was looked at: `evaluate` reads six outputs of two stages that read a third.
    """
    if stage.changed_stage():
        yield f"command in dvc.yaml ({stage.addressing})"
    for dependency in stage.deps:
        source = outputs.get(dependency.fs_path)
        if isinstance(dependency, ParamsDependency):
            yield from (f"{name} in params.yaml" for name in _names(dependency))
        elif source is None and _is_nowhere(repo, dependency):
            # A file that was never given to DVC; what `prepare` made of it is compared all the same.
            continue
        elif source is None or not source.use_cache:
            if dependency.workspace_status():
                yield dependency.def_path
        elif source.hash_info != dependency.hash_info:
            yield dependency.def_path
        if source is None or not isinstance(source.stage, PipelineStage):
            continue
        is_code = source.stage.name == CODE_STAGE
        name = source.def_path if is_code else source.stage.addressing
        if name in seen:
            continue
        seen.add(name)
        if is_code:
            yield from _other_code(repo, source)
        else:
            yield from _not_its_own(repo, source.stage, outputs, seen)


def _names(dependency: ParamsDependency) -> list[str]:
    changed = dependency.workspace_status()
    return [name for file in changed.values() for name in (file if isinstance(file, dict) else [file])]


def _other_code(repo: Repo, digest_file: Output) -> Iterator[str]:
    """The digest file, if the code there has another meaning, whatever `dvc.lock` says of its bytes."""
    with TemporaryDirectory() as folder:
        _write_code(repo, digest_file, Path(folder))
        if _means_otherwise(repo, digest_file, Path(folder)):
            yield f"code ({digest_file.def_path})"


def _write_code(repo: Repo, digest_file: Output, folder: Path) -> None:
    code = [one for one in digest_file.stage.deps if one.def_path in READ_AS_CODE]
    for path in (path for one in code for path in _files(repo, one.fs_path)):
        target = folder / repo.fs.relpath(path, repo.root_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_text(repo, path), encoding="utf-8")


def _means_otherwise(repo: Repo, digest_file: Output, folder: Path) -> bool:
    params = parse_yaml(_text(repo, repo.fs.join(repo.root_dir, str(PARAMS_FILE))), PARAMS_FILE)
    entry_point = f"stages.{Path(digest_file.def_path).stem}"
    meant = digest(entry_point, quantised=is_quantised(params), root=folder)
    return bool(meant != json.loads(_text(repo, digest_file.fs_path)))


def has_other_code(repo: Repo) -> bool:
    """Whether the code of the revision that is switched to has another meaning than its digest files say."""
    files = [out for out in repo.index.outs if getattr(out.stage, "name", None) == CODE_STAGE]
    try:
        with TemporaryDirectory() as folder:
            for one in files[:1]:
                _write_code(repo, one, Path(folder))
            return any(_means_otherwise(repo, one, Path(folder)) for one in files)
    except (MedtuneError, OSError, ValueError, KeyError):
        # What cannot be read is not what ran.
        return True


def has_other_files(repo: Repo) -> bool:
    """Whether a file that a stage reads and none makes is another than `dvc.lock` names, but for code."""
    made = {out.fs_path: out for out in repo.index.outs}
    for dependency in repo.index.deps:
        if isinstance(dependency, ParamsDependency):
            continue
        # An export reads a part of the code as it is, and no figure is of exports.
        if any(Path(dependency.def_path).is_relative_to(code) for code in READ_AS_CODE):
            continue
        source = made.get(dependency.fs_path)
        if source is not None and (isinstance(source.stage, PipelineStage) or _is_in_git(repo)):
            continue
        if not _is_nowhere(repo, dependency) and dependency.workspace_status():
            return True
    return False


def _is_in_git(repo: Repo) -> bool:
    return isinstance(repo.fs, GitFileSystem)


def _is_nowhere(repo: Repo, dependency: Dependency) -> bool:
    """Whether a commit lacks a file of data/raw, which then is in a workspace alone."""
    is_raw = Path(dependency.def_path).is_relative_to(RAW_FOLDER)
    return is_raw and _is_in_git(repo) and not repo.fs.exists(dependency.fs_path)


def _other_params(repo: Repo) -> Iterator[str]:
    """Sections of params.yaml that are not those that `dvc.lock` has of a stage, whatever dvc.yaml names."""
    params = parse_yaml(_text(repo, repo.fs.join(repo.root_dir, str(PARAMS_FILE))), PARAMS_FILE)
    lock = parse_yaml(_text(repo, repo.fs.join(repo.root_dir, str(LOCK_FILE))), LOCK_FILE)
    for stage in lock["stages"].values():
        for section, value in stage.get("params", {}).get(str(PARAMS_FILE), {}).items():
            if params.get(section) != value:
                yield f"{section} in {PARAMS_FILE}"


def _files(repo: Repo, path: str) -> list[str]:
    if not repo.fs.isdir(path):
        return [path]
    return [file for file in repo.fs.find(path) if file.endswith((".py", *PAGE_SUFFIXES))]


def _text(repo: Repo, path: str) -> str:
    with repo.fs.open(path, "r", encoding="utf-8") as file:
        return str(file.read())
