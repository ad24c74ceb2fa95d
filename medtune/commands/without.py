"""`medtune without ID...`: an experiment that never saw these rows, the proof, the cost, and what remains.

The ids go into `data.without`, so the experiment's commit says what it was made without. Every stage runs
from nothing: DVC is told to run it whatever its cache has, and its place for progress is empty, so that no
checkpoint of an earlier run is there. What earlier runs left is listed with the commands that delete it; none
is deleted.
"""

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from medtune.commands.diff import Diff, describe_diff, diff_as_json, make_diff
from medtune.commands.experiments import not_in_git, require_reproduced
from medtune.commands.text_file import read_file
from medtune.core.cache import progress_folder
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.git import git
from medtune.core.hashing import file_sha256
from medtune.core.outputs import read_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml, read_yaml
from medtune.data.params import DataParams
from medtune.data.preparation import Prepared, prepare
from medtune.explain.differences import set_parameter
from medtune.explain.rows import lines_of
from medtune.explain.trees import tree_of
from medtune.explain.trials import trials
from medtune.run.lock_file import LOCK_FILE, dvc_md5, entries, read_lock

PREPARED = Path("data/prepared")
RECORD = Path("models/record.json")
EXPORTS = Path("models/export")
STATEMENTS = ("*.intoto.json*", "*.dsse*", "*.link", "attestations/*")
"""Names that signed statements about a run usually have."""
LINES = (".jsonl", ".ndjson")
LONG_ANSWER = 20
"""Characters from which on an answer is looked for: a short one recurs by right."""
SHOWN = 5
LISTS_IDS = frozenset(["left_out.csv"])
"""Outputs that say that a row was left out, by its id, as `params.yaml` does."""


@dataclass(frozen=True)
class Check:
    """One part of the proof; `broken` says what is wrong, `open` why it could not be shown."""

    name: str
    broken: str | None = None
    open: str | None = None


@dataclass(frozen=True)
class Remaining:
    """Something that may still hold what was made with the rows, and the command that would delete it.

    `commits` are those whose runs are meant, if it is runs.
    """

    what: str
    command: str
    commits: list[str] = field(default_factory=list)


@dataclass
class Withdrawal:
    """What `medtune without` did and found."""

    ids: list[str]
    experiment: str
    checks: list[Check] = field(default_factory=list)
    diff: Diff | None = None
    not_compared: str | None = None
    remaining: list[Remaining] = field(default_factory=list)

    @property
    def broken(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.broken]


def withdraw(names: Sequence[str], file: Path | None = None, *, group: bool = False) -> Withdrawal:
    """Run the pipeline without these rows as an experiment, and prove and compare it."""
    wanted = list(dict.fromkeys([*names, *(_ids_in(file) if file else [])]))
    if not wanted:
        raise MedtuneError("no id is named; accepted: ids of rows (`medtune show` has them), or --file")
    require_reproduced()
    params = DataParams.load()
    with redirect_stdout(sys.stderr):
        prepared = prepare(params)
    rows = _rows(prepared, wanted, params, group=group)
    ids = sorted({*params.without, *(row.id for row in rows)})
    experiment = f"without-{hashlib.sha256(json.dumps([ids, _head()]).encode()).hexdigest()[:8]}"
    if git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{experiment}"):
        raise MedtuneError(
            f"experiment {experiment} is there already: medtune diff HEAD {experiment}; to make it anew: dvc "
            f"exp remove {experiment}"
        )
    ran = _run(experiment, ids)
    found = Withdrawal([row.id for row in rows], experiment)
    places = dict(_places(prepared, found.ids))
    found.checks = _proof(experiment, rows, places, ids, ran)
    try:
        found.diff = make_diff("HEAD", experiment, common=True)
    except MedtuneError as error:
        found.not_compared = str(error)
    found.remaining = list(_remaining(found.ids, places, experiment))
    return found


def describe_withdrawal(found: Withdrawal) -> str:
    """For people."""
    return "\n".join(_described(found))


def withdrawal_as_json(found: Withdrawal) -> str:
    """For programs."""
    content = {
        "ids": found.ids,
        "experiment": found.experiment,
        "proven": not any(check.broken or check.open for check in found.checks),
        "checks": [vars(check) for check in found.checks],
        "diff": json.loads(diff_as_json(found.diff)) if found.diff else None,
        "not_compared": found.not_compared,
        "remaining": [vars(one) for one in found.remaining],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def require_proven(found: Withdrawal) -> None:
    """Raise MedtuneError if a part of the proof failed."""
    if found.broken:
        raise MedtuneError(
            f"{len(found.broken)} of {len(found.checks)} checks failed: {found.experiment} may depend on the "
            "rows; do not take it for a run without them"
        )


def _ids_in(file: Path) -> list[str]:
    return [line.strip() for line in read_file(file).splitlines() if line.strip()]


def _rows(prepared: Prepared, wanted: Sequence[str], params: DataParams, *, group: bool) -> list[Example]:
    """The rows of these ids, and with `group` all that are of a group with one of them."""
    known = {prepared.pool[position].id: position for position in range(len(prepared.pool))}
    for name in wanted:
        if name in params.without:
            raise MedtuneError(f"'{name}' is in data.without already")
        if name not in known:
            close = get_close_matches(name, list(known), n=SHOWN)
            hint = f"the nearest: {', '.join(close)}" if close else f"such as {next(iter(known))}"
            raise MedtuneError(f"no row of the sources has the id '{name}'; accepted: ids of rows, {hint}")
    positions = [known[name] for name in wanted]
    if group:
        leaders = {int(prepared.groups.leader[position]) for position in positions}
        positions = [at for at in range(len(prepared.pool)) if int(prepared.groups.leader[at]) in leaders]
    return [prepared.pool[position] for position in positions]


def _places(prepared: Prepared, ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    wanted = set(ids)
    for position in range(len(prepared.pool)):
        if (name := prepared.pool[position].id) in wanted:
            yield name, prepared.pool.place(position)


def _run(experiment: str, ids: Sequence[str]) -> list[str]:
    """Run every stage in a folder of its own; the names of those that ran."""
    value = "[" + ",".join(json.dumps(name, ensure_ascii=False) for name in ids) + "]"
    # DVC sets a key that is not there only with a plus sign.
    plus = "" if "without" in read_yaml(PARAMS_FILE)["data"] else "+"
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--force", "--name", experiment]
    command += ["--set-param", f"{plus}data.without={value}"]
    command += [part for path in not_in_git() for part in ("--copy-paths", path)]
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    ran = []
    with TemporaryDirectory(prefix="medtune-progress-") as progress:
        # The stages' `python` is to be this one; and no checkpoint of an earlier run is to be there.
        variables = os.environ | {"PATH": binaries, "MEDTUNE_PROGRESS": progress, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", file=sys.stderr, flush=True)
                if match := re.match(r"Running stage '(.+)'", line):
                    ran.append(match[1])
    if not git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{experiment}"):
        raise MedtuneError(
            "the pipeline did not run to its end without these rows; why stands above. Nothing is shown"
        )
    return ran


def _proof(
    experiment: str,
    rows: Sequence[Example],
    places: Mapping[str, str],
    ids: Sequence[str],
    ran: Sequence[str],
) -> list[Check]:
    with TemporaryDirectory(prefix="medtune-without-") as temporary:
        folder = Path(temporary).resolve()
        made = tree_of(experiment, folder / "experiment").folder
        missing = _fetch_outputs(experiment, made)
        stages = read_lock(made / LOCK_FILE)
        outputs = [
            file for entry in entries(stages) if entry.role == "outs" for file in _files(made / entry.path)
        ]
        return [
            _every_stage_ran(stages, ran),
            _declared(stages, ids),
            _chain(made, stages, missing),
            _no_id(outputs, made, {row.id for row in rows}),
            _no_words(outputs, made, rows),
            _as_if_cut(folder, made, places),
        ]


def _fetch_outputs(experiment: str, folder: Path) -> list[str]:
    """Put what the stages of an experiment left into a folder; those that are not to be had."""
    missing = []
    with Repo() as repo, repo.switch(_commit_of(experiment)):
        for out in repo.index.outs:
            path = Path(out.fs_path).relative_to(repo.root_dir).as_posix()
            try:
                found = repo.dvcfs.find(path) or [path]
                for name in found:
                    target = folder / name.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with repo.dvcfs.open(name, "rb") as file:
                        target.write_bytes(file.read())
            except (OSError, DvcException):
                missing.append(path)
    return missing


def _files(path: Path) -> list[Path]:
    return [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]


def _every_stage_ran(stages: Mapping[str, Any], ran: Sequence[str]) -> Check:
    name = "every stage ran from nothing, with an empty place for progress"
    missing = sorted(stages.keys() - set(ran))
    return Check(name, f"not run: {', '.join(missing)}" if missing else None)


def _declared(stages: Mapping[str, Any], ids: Sequence[str]) -> Check:
    """Whether dvc.lock says of prepare that it ran without all of them."""
    name = f"{LOCK_FILE} has the ids in data.without of prepare"
    data = stages.get("prepare", {}).get("params", {}).get(str(PARAMS_FILE), {}).get("data", {})
    absent = sorted(set(ids) - set(data.get("without") or []))
    return Check(name, f"not there: {', '.join(absent)}" if absent else None)


def _chain(folder: Path, stages: dict[str, Any], missing: Sequence[str]) -> Check:
    """Whether every stage read what another of this run wrote, and the files are those of dvc.lock."""
    name = "every stage read what this run wrote, and the record names its questions"
    if missing:
        return Check(name, f"not in the cache: {', '.join(missing)}")
    known = list(entries(stages))
    written = {entry.path: entry.md5 for entry in known if entry.role == "outs"}
    for entry in known:
        if entry.path in written and written[entry.path] != entry.md5:
            return Check(name, f"{entry.stage} read another {entry.path} than this run wrote")
        if entry.role == "outs" and dvc_md5(folder / entry.path) != entry.md5:
            return Check(name, f"{entry.path} is not what {LOCK_FILE} names")
    recorded = read_json(folder / RECORD)["inputs"]
    for split in ("train", "validation"):
        path = PREPARED / f"{split}.jsonl"
        if recorded.get(str(path)) != file_sha256(folder / path):
            return Check(name, f"{RECORD} names another {path}")
    return Check(name)


def _no_id(outputs: Sequence[Path], folder: Path, ids: set[str]) -> Check:
    """Whether an output has an example or an answer of these ids."""
    name = "no question, answer, prediction or list of an output has their ids"
    for file in outputs:
        if file.suffix not in (".json", ".jsonl"):
            continue
        texts = lines_of(file.read_bytes()) if file.suffix == ".jsonl" else [file.read_bytes()]
        for text in texts:
            if found := ids & set(_ids_of(json.loads(text or b"null"))):
                return Check(name, f"{file.relative_to(folder)} has {min(found)}")
    return Check(name)


def _ids_of(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "id" and isinstance(value, str):
                yield value
            elif key == "too_long" and isinstance(value, list):
                yield from value
            else:
                yield from _ids_of(value)
    elif isinstance(content, list):
        for value in content:
            yield from _ids_of(value)


def _no_words(outputs: Sequence[Path], folder: Path, rows: Sequence[Example]) -> Check:
    """Whether an output has what the rows say, as it is or as JSON, HTML or CSV write it."""
    name = "no output has their words"
    kept = [row for split in ("train", "validation", "test") for row in _kept(folder, split)]
    shared: list[str] = []
    wanted: list[tuple[str, set[bytes]]] = []
    said = [(one["id"], _said(one)) for one in kept]
    plain = [(name, _plain(text)) for name, text in said]
    for row in rows:
        for what, text in _texts(row):
            other = next((name for name, words in said if text in words), None)
            if other is None:
                wanted.append((f"the {what} of {row.id}", _spelt(text)))
                other = next((name for name, words in plain if _plain(text) in words), None)
            if other is not None:
                shared.append(f"the {what} of {row.id} is said by {other} too, which stays")
    for file in outputs:
        content = file.read_bytes()
        for what, spelt in wanted:
            if any(one in content for one in spelt):
                return Check(name, f"{file.relative_to(folder)} has {what}")
    more = f", and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
    return Check(name, open="; ".join(shared[:SHOWN]) + more if shared else None)


def _kept(folder: Path, split: str) -> list[dict[str, Any]]:
    text = (folder / PREPARED / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _said(row: Mapping[str, Any]) -> str:
    turns = [turn["content"] for turn in row.get("messages") or []]
    parts = [row["question"], row["answer"], row.get("context") or "", row.get("system") or ""]
    return "\n".join([*parts, *turns, *(row.get("answers") or []), *(row.get("choices") or [])])


def _plain(text: str) -> str:
    """A text whose capitals, spaces and last stop make no other."""
    return " ".join(text.casefold().split()).rstrip(".?!")


def _texts(row: Example) -> Iterator[tuple[str, str]]:
    yield "question", row.question
    if row.context:
        yield "context", row.context
    for turn in row.earlier_turns:
        if len(turn) >= LONG_ANSWER:
            yield "earlier turn", turn
    for answer in row.right_answers:
        if len(answer) >= LONG_ANSWER:
            yield "answer", answer


def _spelt(text: str) -> set[bytes]:
    """A text as the formats of the outputs write it."""
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    spelt = {
        text,
        plain,
        json.dumps(text)[1:-1],
        html.escape(text),
        html.escape(plain),
        text.replace('"', '""'),
    }
    # As a script in a page has it, in which no end tag may stand.
    return {one.encode() for one in spelt | {plain.replace("<", "\\u003c"), plain.replace("</", "<\\/")}}


def _as_if_cut(folder: Path, made: Path, places: Mapping[str, str]) -> Check:
    """Whether prepare makes the same questions of sources from which the rows are cut out."""
    name = "the same questions as from sources that never had the rows"
    cut = folder / "cut"
    numbers: dict[str, list[int]] = {}
    for place in places.values():
        file, _, line = place.rpartition(", line ")
        if not file or not file.endswith(LINES) or not line.isdigit():
            return Check(
                name, open=f"not tried: rows are cut out of {' and '.join(LINES)} alone, not: {place}"
            )
        numbers.setdefault(file, []).append(int(line))
    tree = shutil.copytree(made, cut, symlinks=True)
    for file, gone in numbers.items():
        content = lines_of((tree / file).read_bytes())
        (tree / file).write_bytes(b"".join(line for at, line in enumerate(content, 1) if at not in gone))
    earlier = [one for one in DataParams.load().without if one not in places]
    set_parameter(tree, ("data", "without"), earlier)
    with trials(folder, 1) as running:
        try:
            found = running.prepared(tree)
        except MedtuneError as error:
            return Check(name, open=f"not shown: {error}")
    for split, rows in found.items():
        if rows != _kept(made, split):
            return Check(name, f"{split} has other questions with the rows cut out of the file")
    return Check(name)


def _remaining(ids: Sequence[str], places: Mapping[str, str], experiment: str) -> Iterator[Remaining]:
    """What may hold the rows, or what was made with them, as far as it is seen from here."""
    files: dict[str, list[str]] = {}
    for name, place in places.items():
        files.setdefault(re.split(r", (?:line|row) ", place)[0], []).append(name)
    for file in (file for file in files if Path(file).is_file()):
        yield Remaining(
            f"the rows themselves: {file} ({', '.join(files[file][:SHOWN])})",
            f"delete them there, then: medtune add {file}; and take their ids out of data.without",
        )
        if git("ls-files", "--", file):
            yield Remaining(
                f"earlier versions of {file} in git", f"git filter-repo --invert-paths --path {file}"
            )
    yield Remaining(
        "what lies here: data/prepared, models, metrics of the run with them", f"dvc exp apply {experiment}"
    )
    yield from _earlier_runs(ids, experiment)
    with Repo() as repo:
        cache, remotes = Path(repo.cache.local.path), list(repo.config["remote"])
    runs = cache.parents[1] / "runs"
    yield Remaining(
        f"DVC's cache ({cache.parent.parent if cache.name == 'md5' else cache}): objects of all these runs",
        f"with the experiment applied and committed: dvc gc --workspace; rm -r {runs}",
    )
    for remote in remotes:
        yield Remaining(
            f"the remote {remote}: objects and runs that were pushed to it",
            f"dvc gc --workspace --cloud --remote {remote}; its folder runs/ by hand",
        )
    if EXPORTS.is_dir():
        yield Remaining(f"exports of the adapter that was trained with them: {EXPORTS}", f"rm -r {EXPORTS}")
    if progress := [path for path in sorted(progress_folder().glob("*")) if path.is_dir()]:
        yield Remaining(
            f"progress of runs, of whatever repository: {len(progress)} places in {progress_folder()}",
            f"rm -r {progress_folder()}",
        )
    statements = {path for pattern in STATEMENTS for path in Path().glob(f"**/{pattern}") if path.is_file()}
    for path in sorted(path for path in statements if ".venv" not in path.parts and ".dvc" not in path.parts):
        yield Remaining(f"a statement about a run: {path}", f"git rm {path}, and revoke it where it was sent")
    yield Remaining(
        "clones, forks, published adapters, and whatever was sent elsewhere: not seen from here",
        "ask who has them",
    )


def _earlier_runs(ids: Sequence[str], experiment: str) -> Iterator[Remaining]:
    """Experiments, and commits, whose run saw the rows, by the questions that their lock names.

    A history has hundreds of commits: those of which the same is said are one entry.
    """
    commits: dict[str, list[str]] = {}
    names = dict(
        line.split(" ", 1) for line in git("for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    )
    revisions = git("log", "--all", "--format=%H", "--", str(LOCK_FILE)).split()
    for revision in dict.fromkeys([*revisions, *names]):
        reference = names.get(revision, "")
        if reference.endswith(f"/{experiment}") or reference == "refs/exps/exec/EXEC_CHECKPOINT":
            continue
        saw = _saw(revision, ids)
        if saw is None:
            continue
        name = reference.rpartition("/")[2] if reference.startswith("refs/exps/") else ""
        if name:
            yield Remaining(f"experiment {name}: its run {saw}", f"dvc exp remove {name}", [revision])
        else:
            commits.setdefault(saw, []).append(revision)
    for saw, those in commits.items():
        one = len(those) == 1
        more = f" and {len(those) - SHOWN} more (--json has them)" if len(those) > SHOWN else ""
        named = ", ".join(revision[:10] for revision in those[:SHOWN]) + more
        yield Remaining(
            f"{'commit' if one else 'commits'} {named}: {'its run' if one else 'their runs'} {saw}",
            f"{'its' if one else 'their'} objects go with DVC's cache and the remotes, see below",
            those,
        )


def _saw(revision: str, ids: Sequence[str]) -> str | None:
    """In words, whether the run of a revision saw one of the rows; None if it did not."""
    shown = subprocess.run(["git", "show", f"{revision}:./{LOCK_FILE}"], capture_output=True, text=True)
    try:
        prepare = parse_yaml(shown.stdout, LOCK_FILE)["stages"]["prepare"]
        outs = {out["path"]: out["md5"] for out in prepare["outs"]}
        without = prepare["params"][str(PARAMS_FILE)]["data"].get("without") or []
    except (MedtuneError, KeyError, TypeError):
        return None
    if set(ids) <= set(without):
        return None
    for split in ("train", "validation", "test"):
        content = _cached(outs.get(f"{PREPARED}/{split}.jsonl", ""))
        if content is None:
            return "may have seen them: the questions are not in the cache"
        found = [name for name in ids if f'"id": {json.dumps(name, ensure_ascii=False)}'.encode() in content]
        if found:
            return f"saw {', '.join(found[:SHOWN])} in {split}"
    # Drawn for no split; yet it had a part in how the others were grouped and placed.
    return "asked none of them, but grouped and split the others beside them"


def _cached(md5: str) -> bytes | None:
    with Repo() as repo:
        path = Path(repo.cache.local.oid_to_path(md5)) if md5 else None
    return path.read_bytes() if path and path.is_file() else None


def _described(found: Withdrawal) -> Iterator[str]:
    more = f" and {len(found.ids) - SHOWN} more" if len(found.ids) > SHOWN else ""
    yield f"without {', '.join(found.ids[:SHOWN])}{more}: experiment {found.experiment}"
    yield ""
    for check in found.checks:
        state = "BROKEN" if check.broken else "open" if check.open else "holds"
        yield f"{state:<7}{check.name}"
        if said := check.broken or check.open:
            yield f"       {said}"
    yield "\nwhat it cost (A: with the rows, B: without; questions that both ask):"
    yield describe_diff(found.diff, examples=0) if found.diff else f"not compared: {found.not_compared}"
    yield "\nwhat remains (nothing was deleted):"
    for one in found.remaining:
        yield f"  {one.what}\n      {one.command}"
    yield f"\nto go on with it: dvc exp apply {found.experiment}, or dvc exp branch {found.experiment} NAME"


def _head() -> str:
    return git("rev-parse", "HEAD").strip()


def _commit_of(experiment: str) -> str:
    return git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{experiment}").split()[0]
