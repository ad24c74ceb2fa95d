"""`medtune seeds`: the run of this commit with other seeds, and how far its figures scatter.

Only `finetune.seed` differs: the adapter's initial weights, dropout, the order of batches. Each run is a DVC
experiment in a folder of its own, named after all else that decides it and its seed, as in `seed-0f3a5c12-8`.
So one that is there, whichever commit it was made on, is not made again, and one that was killed goes on from
the progress of its stages (medtune/run/progress.py).
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medtune.commands.experiments import (
    command_of,
    commits_named,
    forget_killed,
    one_line,
    only_here,
    require_reproduced,
    stages_of,
    start_dvc,
)
from medtune.core.errors import MedtuneError
from medtune.core.git import git
from medtune.core.outputs import write_json
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
from medtune.run.lock_file import read_lock

HEADLINE = "metrics/evaluation.json"
KINDS = "metrics/kinds"
LIMIT = 2**32
"""Seeds lie below it."""
COLUMNS = ("questions", "figure", "mean", "deviation", "lowest", "highest", "band")
NONE_SEEN = "none seen"
ENOUGH = 5
"""Runs from which on Student's quantile is below 3."""
SHARES = ("accuracy", "gain")
"""Shown in percentage points."""


def train_seeds(n: int) -> Seeds:
    """Run what is missing of `n` seeds, the commit's own among them, and write `metrics/seeds.json`."""
    if n < FEWEST:
        raise MedtuneError(f"--n is {n}: a spread takes at least {FEWEST} runs")
    require_reproduced(beside=[SEEDS_FILE])
    stages = read_lock()
    fingerprint, own = seeds_fingerprint(stages), trained_seed(stages)
    seeds = [(own + number) % LIMIT for number in range(n)]
    with only_here("medtune seeds") as lock:
        revisions = [git("rev-parse", "HEAD").strip()]
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


def _experiment(fingerprint: str, seed: int, lock: int) -> str:
    """The commit of the experiment with a seed, which is run unless it is there."""
    name = f"seed-{fingerprint[:8]}-{seed}"
    if known := _find(name, fingerprint, seed):
        print(f"{name} is there already", file=sys.stderr, flush=True)
        return known
    forget_killed(name)
    _run_dvc(command_of(name, {"finetune.seed": seed}), lock)
    # Not its exit code: DVC also ends what an earlier, killed one had begun, and may complain about that.
    if made := _find(name, fingerprint, seed):
        return made
    raise MedtuneError(
        f"seed {seed} did not run to its end; why stands above. What is done is kept: mend that, then the "
        "same command goes on from there"
    )


def _find(name: str, fingerprint: str, seed: int) -> str | None:
    """The commit of an experiment, whichever commit it was made on; None if there is none."""
    found = commits_named(name)
    for revision in found:
        try:
            stages = stages_of(revision)
            if seeds_fingerprint(stages) == fingerprint and trained_seed(stages) == seed:
                return revision
        except (MedtuneError, KeyError, TypeError, AttributeError):
            continue
    if found:
        raise MedtuneError(f"experiment {name}: not of seed {seed} and this run; run: dvc exp remove {name}")
    return None


def _run_dvc(command: Sequence[str], lock: int) -> None:
    """Run DVC and show on standard error what it prints."""
    with start_dvc(command, lock, sys.stderr) as process:
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
        raise MedtuneError(f"DVC cannot read {HEADLINE} of every seed: {one_line(error)}") from None


def _by_kind(files: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {unquote(Path(name).stem): file for name, file in files.items() if name.startswith(f"{KINDS}/")}
