"""`medtune runs`: every run in a line, with the parameters that tell them apart and the headline metrics.

`dvc exp show` makes a column of every parameter and of every metric, too many for a terminal. This is the
same data, from DVC, without what is the same in all rows.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from shutil import get_terminal_size
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError
from dvc.stage import PipelineStage
from dvc.utils.flatten import flatten
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medtune.commands.revisions import READ_AS_CODE, has_other_code, has_other_files
from medtune.core.errors import MedtuneError
from medtune.run.code import DIGESTS

HEADLINES = ("metrics/evaluation.json", "metrics/training.json")
"""The files of the metrics that are shown."""
LOOKUP, OVER_LOOKUP = "metrics/lookup.json", "over_lookup"
"""What the run gains over the best lookup, in the same words; its column stands where there is a lookup."""
COLUMNS = ("accuracy", "gain", "verdict", OVER_LOOKUP, "token_f1", "validation_loss")
GIVE_WAY = ("token_f1", OVER_LOOKUP, "gain")
"""Columns that make room, in this order, for the parameters that experiments try: those are why one looks."""
WIDTH = 120
"""Characters in a line where there is no terminal to ask."""
CELL = 24
"""Characters of a parameter's value that are shown."""
NAMED = 4
"""Parameters without room that are named; of the others there is a count."""
FIRST = ("finetune", "model", "prompt", "compute", "answer", "evaluate", "data")
"""Sections by how likely runs are compared for their sake: the sizes of all kinds would fill a line."""
NOT_RUN, IN_PART, UNREADABLE = "not run", "in part", "unreadable"
STATES = {
    NOT_RUN: "not with these parameters, files or code, or the metrics are not its own; run: dvc repro",
    IN_PART: "the stages whose metrics are missing have not run since; dvc exp apply it, then run: dvc repro",
    UNREADABLE: "DVC cannot read its params.yaml or its metrics",
}
"""States beside DVC's own, and what they mean."""
NOTHING = (
    "no runs yet: `dvc repro` makes the first; `dvc exp run --set-param finetune.lora.r=32` tries another"
)


@dataclass(frozen=True)
class Run:
    """The workspace, a commit, or an experiment on one; `state` is empty for what has simply succeeded."""

    name: str
    commit: str
    state: str
    is_experiment: bool
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


def find_runs(revisions: Sequence[str] = (), *, commits: int = 1, all_commits: bool = False) -> list[Run]:
    """The workspace, the last `commits` from each revision (default: the current one), their experiments."""
    try:
        with Repo() as repo:
            states = repo.experiments.show(revs=list(revisions) or None, num=commits, all_commits=all_commits)
            code = _Code(repo)
            return [_vouched_for(run, found, repo, code) for run, found in _runs(states)]
    except (DvcException, SCMError) as error:
        raise MedtuneError(f"DVC cannot list runs here: {' '.join(str(error).split())}") from None


def describe_runs(runs: Sequence[Run], width: int | None = None) -> str:
    """A table for people, at most `width` characters wide (default: as wide as the terminal)."""
    if not any(run.metrics or run.state for run in runs):
        return NOTHING
    names, columns = _telling_apart(runs), _columns(runs)
    # Wider than any table, or rich would cut cells.
    console = Console(width=100_000)
    shown, kept = _fitting(runs, names, columns, console, width or get_terminal_size((WIDTH, 24)).columns)
    with console.capture() as captured:
        console.print(_table(runs, shown, kept))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    if left_out := [one for one in [*names, *columns] if one not in [*shown, *kept]]:
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        lines.append(f"no room for: {', '.join(left_out[:NAMED])}{more}; a wider terminal or --json has them")
    lines += [
        f"{state}: {words}" for state, words in STATES.items() if any(run.state == state for run in runs)
    ]
    return "\n".join(lines)


def runs_as_json(runs: Sequence[Run]) -> str:
    """The same for programs: all parameters that differ, under their full names, and every metric."""
    names = _telling_apart(runs)
    rows = [
        {
            "run": run.name,
            "commit": run.commit,
            "state": run.state or "success",
            "params": {name: run.params[name] for name in names if name in run.params},
            "metrics": dict(run.metrics),
        }
        for run in runs
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


class _Code:
    """Whether a revision has other code than ran; experiments on a commit mostly share theirs."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._known: dict[str, bool] = {}

    def is_another(self, run: Run, revision: str) -> bool:
        """To be asked while that revision is switched to."""
        named = [f"{revision}:./{path}" for path in (*READ_AS_CODE, DIGESTS)]
        shown = subprocess.run(["git", "rev-parse", *named], capture_output=True, text=True)
        if shown.returncode:
            # The workspace, or a repository that has not all of these.
            return has_other_code(self._repo)
        key = f"{shown.stdout}{run.params.get('compute.quantization')}"
        if key not in self._known:
            self._known[key] = has_other_code(self._repo)
        return self._known[key]


def _fitting(
    runs: Sequence[Run], names: Sequence[str], columns: Sequence[str], console: Console, width: int
) -> tuple[list[str], list[str]]:
    """The parameters and the metrics that have room; the names of the runs and the other metrics stay."""

    def fits(shown: Sequence[str], kept: Sequence[str]) -> bool:
        return console.measure(_table(runs, shown, kept)).maximum <= width

    # At least two: a single experiment differs from its commit, and from no other experiment.
    tried = max(2, len(_varying([run for run in runs if run.is_experiment])))
    shown, kept = list(names), list(columns)
    while len(shown) > tried and not fits(shown, kept):
        shown.pop()
    gone = [one for one in GIVE_WAY if one in columns]
    while shown and not fits(shown, [one for one in columns if one not in gone]):
        shown.pop()
    # Of the metrics only those go that have to.
    for number in range(len(gone) + 1):
        kept = [one for one in columns if one not in gone[:number]]
        if fits(shown, kept):
            break
    return shown, kept


def _vouched_for(run: Run, found: Any, repo: Repo, code: _Code) -> Run:
    """The run as it is, without metrics that its `dvc.lock` does not have as its own.

    It is `not run` if that has other parameters, files, code or metrics; `in part` if a stage was run and
    those that read what it left were not, as with `dvc exp run finetune`.
    """
    if run.state:
        return run
    with repo.switch(found.rev):
        read = [*repo.index.deps, *repo.index.outs]
        shown = [one for one in read if isinstance(one, ParamsDependency) or getattr(one, "is_metric", False)]
        changed = any(one.workspace_status() for one in shown)
        if changed or has_other_files(repo) or code.is_another(run, found.rev):
            return replace(run, state=NOT_RUN, metrics={})
        outdated = _outdated(repo)
    if not outdated:
        return run
    return replace(run, state=IN_PART, metrics=_metrics(found, outdated))


def _outdated(repo: Repo) -> set[str]:
    """The outputs of stages that have read something else than is there, by what `dvc.lock` says."""
    made = {out.fs_path: out for out in repo.index.outs}
    waiting = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
    outdated: set[str] = set()
    while stale := [stage for stage in waiting if any(_differs(dep, made, outdated) for dep in stage.deps)]:
        outdated |= {out.fs_path for stage in stale for out in stage.outs}
        waiting = [stage for stage in waiting if stage not in stale]
    return {repo.fs.relpath(path, repo.root_dir) for path in outdated}


def _differs(dep: Any, made: Mapping[str, Any], outdated: Set[str]) -> bool:
    source = made.get(dep.fs_path)
    return source is not None and (dep.fs_path in outdated or dep.hash_info != source.hash_info)


def _runs(states: Iterable[Any]) -> Iterator[tuple[Run, Any]]:
    for baseline in states:
        commit = baseline.rev if baseline.rev == "workspace" else baseline.rev[:7]
        yield _run(baseline, baseline.name or commit, commit, "", is_experiment=False), baseline
        for experiment in baseline.experiments or ():
            tip = experiment.revs[0]
            state = experiment.executor.state if experiment.executor else "success"
            name = tip.name or experiment.name or tip.rev[:7]
            run = _run(tip, name, commit, "" if state == "success" else state, is_experiment=True)
            yield run, tip


def _run(found: Any, name: str, commit: str, state: str, *, is_experiment: bool) -> Run:
    if found.data is None:
        return Run(name, commit, state or UNREADABLE, is_experiment)
    params = {key: value for file in found.data.params.values() for key, value in _values(file).items()}
    # What a run that has not ended has in its metrics is what the commit before had.
    metrics = {} if state else _metrics(found)
    return Run(name, commit, state, is_experiment, params, metrics)


def _metrics(found: Any, without: Container[str] = ()) -> dict[str, Any]:
    """The headline metrics, but for those in some files."""
    files = {name: _values(file) for name, file in found.data.metrics.items() if name not in without}
    metrics: dict[str, Any] = {}
    for name in HEADLINES:
        metrics |= files.get(name, {})
    lookup = files.get(LOOKUP, {})
    if isinstance(lookup.get("gain"), float):
        metrics[OVER_LOOKUP] = f"{lookup['gain']:.2f} {lookup.get('verdict', '')}".strip()
    return metrics


def _values(file: Mapping[str, Any]) -> dict[str, Any]:
    """The values in a file that DVC has read, by dotted name; none if it could not be read."""
    content = file.get("data")
    return flatten(content) if isinstance(content, dict) else {}


def _telling_apart(runs: Sequence[Run]) -> list[str]:
    """Parameters of which not all runs have the same value, first those that tell experiments apart."""
    known = [run for run in runs if run.params]
    experiments = [run for run in known if run.is_experiment]
    return list(dict.fromkeys([*_varying(experiments), *_varying(known)]))


def _varying(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.params)
    values = {
        name: {json.dumps(run.params[name], default=str) for run in runs if name in run.params}
        for name in names
    }
    varying = [name for name in names if len(values[name]) > 1]
    return sorted(varying, key=_rank)


def _rank(name: str) -> int:
    section = name.partition(".")[0]
    return FIRST.index(section) if section in FIRST else len(FIRST)


def _columns(runs: Sequence[Run]) -> list[str]:
    return [name for name in COLUMNS if name != OVER_LOOKUP or any(name in run.metrics for run in runs)]


def _table(runs: Sequence[Run], names: Sequence[str], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    short = _short_names([name for run in runs for name in run.params])
    has_state = any(run.state for run in runs)
    table.add_column("run", no_wrap=True)
    for header in [*(short[name] for name in names), *columns]:
        table.add_column(header, no_wrap=True, justify="right")
    if has_state:
        table.add_column("state", no_wrap=True)
    for run in runs:
        cells = [_shown(run.params, name) for name in names]
        cells += [_metric(run.metrics, column) for column in columns]
        name = f"  {run.name}" if run.is_experiment else run.name
        style = "" if run.is_experiment else "bold"
        # As Text, or rich would take brackets in a name or a value for a style.
        table.add_row(*map(Text, [name, *cells, *([run.state] if has_state else [])]), style=style)
    return table


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Names without their section where that leaves no doubt: `lora.r` for `finetune.lora.r`."""
    names = set(names)
    counts = Counter(name.partition(".")[2] or name for name in names)
    rests = {name: name.partition(".")[2] or name for name in names}
    return {name: rest if counts[rest] == 1 else name for name, rest in rests.items()}


def _metric(metrics: Mapping[str, Any], column: str) -> str:
    value = metrics.get(column)
    if not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    if column != "gain":
        return f"{value:.3f}"
    low, high = metrics.get("gain_low"), metrics.get("gain_high")
    interval = f" [{low:.2f}, {high:.2f}]" if isinstance(low, float) and isinstance(high, float) else ""
    return f"{value:.2f}{interval}"


def _shown(params: Mapping[str, Any], name: str) -> str:
    if name not in params:
        return ""
    text = "null" if params[name] is None else " ".join(str(params[name]).split())
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"
