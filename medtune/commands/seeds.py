"""`medtune seeds`: the run of this commit with other seeds, and how far its figures scatter.

Only `finetune.seed` differs: the adapter's initial weights, dropout, the order of batches. Each run is a DVC
experiment in a folder of its own, named after all else that decides it and its seed, as in `seed-0f3a5c12-8`.
So one that is there, whichever commit it was made on, is not made again, and one that was killed goes on from
the progress of its stages (medtune/run/progress.py).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medtune.core.errors import MedtuneError
from medtune.core.outputs import read_json, write_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import parse_yaml, read_yaml
from medtune.data.tracking import declared_files
from medtune.evaluate.seeds import (
    FEWEST,
    SEEDS_FILE,
    Seeds,
    Spread,
    collect_seeds,
    noise_band,
    seeds_fingerprint,
    trained_seed,
)
from medtune.run.lock_file import LOCK_FILE, read_lock
from medtune.verify.uncommitted import uncommitted

HEADLINE = "metrics/evaluation.json"
KINDS = "metrics/kinds"
FIRST_RUN = "run `dvc repro` and commit what it leaves, then this again"
TOLD = 3
"""Stages, and files of a stage, that an error names."""
LIMIT = 2**32
"""Seeds lie below it."""
COLUMNS = ("questions", "figure", "mean", "deviation", "lowest", "highest", "band")
NONE_SEEN = "none seen"
ENOUGH = 5
"""Runs from which on Student's quantile is below 3."""
SHARES = ("accuracy", "gain")
"""Shown in percentage points."""
TEMPORARY = Path(".dvc/tmp/exps/standalone")
"""Where `dvc exp run --temp` works, and notes its runs in `run/`."""
LOCK = Path(".dvc/tmp/medtune-seeds.lock")
STASHED = Path(".dvc/tmp/repro.dat")
"""What DVC adds to git's index for the second in which it stashes the workspace."""


def train_seeds(n: int) -> Seeds:
    """Run what is missing of `n` seeds, the commit's own among them, and write `metrics/seeds.json`."""
    if n < FEWEST:
        raise MedtuneError(f"--n is {n}: a spread takes at least {FEWEST} runs")
    require_reproduced()
    stages = read_lock()
    fingerprint, own = seeds_fingerprint(stages), trained_seed(stages)
    seeds = [(own + number) % LIMIT for number in range(n)]
    with _only_here() as lock:
        revisions = [_git("rev-parse", "HEAD").strip()]
        for number, seed in enumerate(seeds[1:], 2):
            print(f"seed {seed}, {number} of {n}", file=sys.stderr, flush=True)
            revisions.append(_experiment(fingerprint, seed, lock))
    found = collect_seeds(fingerprint, seeds, *_figures(revisions))
    write_json(SEEDS_FILE, found.model_dump())
    return found


def describe_seeds(found: Seeds) -> str:
    """A table for people, and what it means."""
    # No dictionary: a kind may be called "all".
    rows = [
        (kind, *_cells(name, spread))
        for kind, spreads in [*found.kinds.items(), ("all", found.all)]
        for name, spread in spreads.items()
    ]
    return "\n".join([*_table(rows), *_means(found, {row[-1] for row in rows})])


def seeds_as_json(found: Seeds) -> str:
    """The content of `metrics/seeds.json`, and the band of each figure."""
    content = found.model_dump()
    for name, spread in found.all.items():
        content["all"][name]["band"] = noise_band(spread.values)
    for kind, spreads in found.kinds.items():
        for name, spread in spreads.items():
            content["kinds"][kind][name]["band"] = noise_band(spread.values)
    return json.dumps(content, indent=2, ensure_ascii=False)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    table = Table(box=None, pad_edge=False)
    for number, header in enumerate(COLUMNS):
        table.add_column(header, no_wrap=True, justify="left" if number < 2 else "right")
    for row in rows:
        # As Text, or rich would take brackets in the name of a kind for a style.
        table.add_row(*map(Text, row))
    # Wider than any table, or rich would cut cells.
    console = Console(width=100_000)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _cells(name: str, spread: Spread) -> Iterator[str]:
    scale, digits = (100, 1) if name in SHARES else (1, 3)
    yield f"{name}, points" if name in SHARES else name
    for value in (spread.mean, spread.standard_deviation, spread.low, spread.high):
        yield f"{scale * value:.{digits}f}"
    band = noise_band(spread.values)
    yield NONE_SEEN if band is None else f"{scale * band:.{digits}f}"


def _means(found: Seeds, bands: Set[str]) -> Iterator[str]:
    n = len(found.seeds)
    yield f"{n} runs: finetune.seed {', '.join(map(str, found.seeds))}; in {SEEDS_FILE}"
    if bands - {NONE_SEEN}:
        yield "band: two runs that differ in finetune.seed alone differ by no more, 95 times of 100."
        yield "Two runs that differ in something else have to differ by more than that to say anything."
    if n < ENOUGH:
        yield f"{n} runs tell little about a spread, so the band is wide: more (--n) make it narrower."
    if NONE_SEEN in bands:
        yield f"{NONE_SEEN}: equal in all {n} runs, which is no proof that a seed changes nothing."


def require_reproduced() -> None:
    """Refuse a workspace that is not the run of its commit, beside which others are run."""
    read_yaml(PARAMS_FILE)
    if subprocess.run(["git", "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True).returncode:
        raise MedtuneError(f"no git commit here, beside which this runs; {FIRST_RUN}")
    if changed := [name for name in uncommitted() if name != str(SEEDS_FILE)]:
        _refuse(changed)
    try:
        with Repo() as repo:
            differing = [*_differing(repo.status())]
    except (DvcException, SCMError) as error:
        raise MedtuneError(f"DVC cannot say whether the run is done: {_one_line(error)}") from None
    if differing:
        raise MedtuneError(f"not as the last run has it: {_first(differing, 'stages')}; {FIRST_RUN}")


def _refuse(changed: Sequence[str]) -> None:
    if str(PARAMS_FILE) in changed and _git("ls-files", str(STASHED)):
        raise MedtuneError(
            f"a `dvc exp run` that was killed as it began has left its parameters in {PARAMS_FILE}; the "
            f"commit's come back with: git restore --source=HEAD --staged --worktree {PARAMS_FILE} {STASHED}"
        )
    raise MedtuneError(f"not committed: {', '.join(changed)}; {FIRST_RUN}")


def _differing(status: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """From what `dvc status` says to a stage and a name each."""
    for stage, changes in status.items():
        groups = [group for change in changes if isinstance(change, dict) for group in change.values()]
        names = [name for group in groups if isinstance(group, dict) for name in group]
        yield f"{stage} ({_first(names, 'files')})" if names else stage


def _first(names: Sequence[str], of: str) -> str:
    """The first few; in a clone without outputs there are dozens."""
    more = [f"{len(names) - TOLD} more {of}"] if len(names) > TOLD else []
    return ", ".join([*names[:TOLD], *more])


@contextmanager
def _only_here() -> Iterator[int]:
    """A lock that lasts as long as this process, or an experiment that outlives it; yields its descriptor."""
    try:
        import fcntl
    except ImportError:
        raise MedtuneError(
            "`medtune seeds` needs locks that a program inherits, which Windows has not; run it in WSL 2"
        ) from None
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MedtuneError(
                "`medtune seeds`, or an experiment of it, still runs in this folder; wait for it or end it, "
                "then run this again: it goes on from what is done"
            ) from None
        yield lock.fileno()


def _experiment(fingerprint: str, seed: int, lock: int) -> str:
    """The commit of the experiment with a seed, which is run unless it is there."""
    name = f"seed-{fingerprint[:8]}-{seed}"
    if known := _find(name, fingerprint, seed):
        print(f"{name} is there already", file=sys.stderr, flush=True)
        return known
    _forget_killed(name)
    command = ["exp", "run", "--temp", "--name", name, "--set-param", f"finetune.seed={seed}"]
    command += [part for path in not_in_git() for part in ("--copy-paths", path)]
    _run_dvc(command, lock)
    # Not its exit code: DVC also ends what an earlier, killed one had begun, and may complain about that.
    if made := _find(name, fingerprint, seed):
        return made
    raise MedtuneError(
        f"seed {seed} did not run to its end; why stands above. What is done is kept: mend that, then the "
        "same command goes on from there"
    )


def _find(name: str, fingerprint: str, seed: int) -> str | None:
    """The commit of an experiment, whichever commit it was made on; None if there is none."""
    found = _git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").split()
    for revision in found:
        try:
            stages = parse_yaml(_git("show", f"{revision}:./{LOCK_FILE}"), LOCK_FILE)["stages"]
            if seeds_fingerprint(stages) == fingerprint and trained_seed(stages) == seed:
                return revision
        except (MedtuneError, KeyError, TypeError, AttributeError):
            continue
    if found:
        raise MedtuneError(f"experiment {name}: not of seed {seed} and this run; run: dvc exp remove {name}")
    return None


def _forget_killed(name: str) -> None:
    """Delete the folders of a killed experiment of this name, which DVC leaves and lists as running."""
    for note in TEMPORARY.glob("run/*/*.run"):
        try:
            noted = read_json(note)
            folder = Path(noted["root_dir"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if noted.get("name") == name and folder.parent == TEMPORARY.absolute():
            shutil.rmtree(folder, ignore_errors=True)


def not_in_git() -> list[str]:
    """Paths that an experiment in a folder of its own would lack: data and a base model that git ignores."""
    source = str(read_yaml(PARAMS_FILE)["model"]["source"])
    places = [*declared_files(), *([source] if source.startswith("./") else [])]
    if not places:
        return []
    listed = _git("ls-files", "--others", "--directory", "-z", "--", *places).split("\0")
    # DVC fetches what a .dvc file names.
    return [path.rstrip("/") for path in listed if path and not Path(f"{path.rstrip('/')}.dvc").is_file()]


def _run_dvc(command: Sequence[str], lock: int) -> None:
    """Run DVC and show on standard error what it prints."""
    # The stages' `python` is to be this one, also where its environment was not activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", *command],
        stdout=sys.stderr,
        env=os.environ | {"PATH": path},
        pass_fds=[lock],
    ) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            # DVC was told as well, and is to clean up first.
            process.wait()
            raise


def _figures(revisions: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, dict[str, Any]]]]:
    """Of each revision, what it scored over all questions, and by kind."""
    try:
        with Repo() as repo:
            shown = repo.metrics.show(targets=[HEADLINE, KINDS], revs=list(revisions), on_error="raise")
        files = [
            {name: file["data"] for name, file in shown[revision]["data"].items()} for revision in revisions
        ]
        return [run[HEADLINE] for run in files], [_by_kind(run) for run in files]
    except (DvcException, SCMError, KeyError) as error:
        raise MedtuneError(f"DVC cannot read {HEADLINE} of every seed: {_one_line(error)}") from None


def _by_kind(files: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {unquote(Path(name).stem): file for name, file in files.items() if name.startswith(f"{KINDS}/")}


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise MedtuneError(f"git {arguments[0]}: {_one_line(result.stderr)}")
    return result.stdout


def _one_line(words: object) -> str:
    return " ".join(str(words).split())
