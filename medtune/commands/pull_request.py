"""What a pull request changes, as one comment in Markdown: the verdict, the questions, the metrics.

    python -m medtune.commands.pull_request origin/main --output report.md     # make pull-request-report

Compared is the run in this folder with that of the commit where the two part. A base whose predictions are
neither here nor in the remote, or not of its own code, is run here. Exit code 1: a loss is shown beyond
chance (`medtune diff --fail-if-worse`), or there is nothing to compare; the report is written all the same.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.repo import Repo

from medtune.commands.diff import LABELS, Diff, describe_diff, make_diff
from medtune.commands.revisions import read_predictions
from medtune.commands.tables import plain_markdown
from medtune.core.errors import MedtuneError, run
from medtune.core.git import git
from medtune.core.outputs import write_text

MARKER = "<!-- medtune: what this pull request changes -->"
"""The first line, by which the comment is found that is to be written anew."""
MOST = 60_000
"""Characters; GitHub takes a comment of 65,536."""
MADE = ("dvc.lock", "digests", "metrics", "models/record.json")
"""What a run leaves in git."""
RUN_HERE = "run here anew"


@dataclass(frozen=True)
class Report:
    """The comment, and why the check fails, if it does."""

    text: str
    failed: str | None


@dataclass(frozen=True)
class Base:
    """A commit whose predictions can be read; `made` says why it had to be run here, or is None."""

    revision: str
    made: str | None


def report(base: str) -> Report:
    """Compare the run in this folder with that of the commit where HEAD and `base` part."""
    parted = git("merge-base", "HEAD", base).strip()
    try:
        found = _base(parted)
        diff = make_diff(found.revision, common=True)
    except MedtuneError as error:
        return Report(_not_compared(base, parted, str(error)), f"not compared: {error}")
    words, sentences = verdict(diff)
    lines = [
        *_head(words, base, parted),
        f"The base: {RUN_HERE}, as {plain_markdown(found.made)}" if found.made else "",
        *sentences,
        *_uncommitted(),
        "",
        *_folded("The comparison, question by question", describe_diff(diff, markdown=True)),
        *_metrics(found.revision),
    ]
    return Report(_within(lines), f"worse: {'; '.join(diff.losses)}" if diff.losses else None)


def verdict(diff: Diff) -> tuple[str, list[str]]:
    """A word or a few for the title, and what is behind them."""
    better, worse = (_shown(diff, what) for what in ("better", "worse"))
    sentences = [f"Better beyond chance: {'; '.join(better)}.  "] if better else []
    sentences += [f"Worse beyond chance: {'; '.join(worse)}.  "] if worse else []
    words, behind = _words(diff, is_better=bool(better), is_worse=bool(worse))
    n, only, differing = len(diff.before), diff.aligned.only, diff.aligned.differing
    if missed := only[0] + differing:
        # A branch that asks fewer questions than its base may be unchanged in those.
        words += f", in the {n} of {n + missed} questions of the base that are compared"
    if diff.aligned.left_out:
        sentences.append(
            f"Left out: {only[0]} questions that the base alone asks, {only[1]} that this alone asks, "
            f"{differing} that differ.  "
        )
    return words, [*behind, *sentences]


def _words(diff: Diff, *, is_better: bool, is_worse: bool) -> tuple[str, list[str]]:
    if diff.losses:
        return "worse", []
    if is_worse:
        return "worse, within what `diff.tolerated_loss` lets pass", []
    if is_better:
        return "better", []
    if _is_same(diff):
        return "unchanged", [f"Every answer to {len(diff.before)} questions is the same.  "]
    return "no difference is shown", ["What differs may be chance.  "]


def _shown(diff: Diff, what: str) -> list[str]:
    scopes = {"": diff.comparisons["all"]}
    if len(diff.comparisons["kinds"]) > 1:
        scopes |= diff.comparisons["kinds"]
    return [
        f"{LABELS[metric]}{f' of {plain_markdown(kind)}' if kind else ''} "
        f"({one['before']:.3f} to {one['after']:.3f})"
        for kind, metrics in scopes.items()
        for metric, one in metrics.items()
        if one["verdict"] == what
    ]


def _is_same(diff: Diff) -> bool:
    return all(one.answer == other.answer for one, other in zip(diff.before, diff.after, strict=True))


def _head(words: str, base: str, parted: str) -> list[str]:
    here = git("rev-parse", "--short", "HEAD").strip()
    return [
        MARKER,
        f"### medtune: {words}",
        "",
        f"A: {plain_markdown(base)} at {parted[:9]}, B: the run of {here}. Worse and better are those beyond "
        "chance, question by question; `docs/evaluation.md` has the words.  ",
    ]


def _not_compared(base: str, parted: str, reason: str) -> str:
    return "\n".join([*_head("not compared", base, parted), f"Why: {plain_markdown(reason)}", ""])


def _uncommitted() -> Iterator[str]:
    """A note where the committed outputs are not those of the run: nobody ran this, or elsewhere."""
    status = git("status", "--porcelain", "--", *MADE)
    if status:
        names = sorted({line.split(maxsplit=1)[1] for line in status.splitlines()})
        some = ", ".join(f"`{plain_markdown(name)}`" for name in names[:4])
        rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield (
            f"Not as committed: {some}{rest}. The figures are of the run made here, not of what the commit "
            "holds: run `dvc repro` and commit what it writes.  "
        )


def _metrics(revision: str) -> Iterator[str]:
    command = [sys.executable, "-m", "dvc", "metrics", "diff", "--md", revision]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode != 0:
        yield f"`dvc metrics diff` failed: {plain_markdown(shown.stderr.strip())}"
        return
    text = shown.stdout.strip()
    # Without a difference DVC prints the head of the table alone.
    changed = len(text.splitlines()) > 2
    yield from _folded("The headline metrics", text) if changed else ["The headline metrics are the same."]


def _folded(title: str, text: str) -> list[str]:
    return ["", f"<details><summary>{title}</summary>", "", text, "", "</details>"]


def _within(lines: list[str]) -> str:
    text = "\n".join(lines) + "\n"
    if len(text) <= MOST:
        return text
    said = "\n\nCut off here: a comment has no room for more. `make pull-request-report` writes all of it.\n"
    # A tag or a table that is cut is text; the verdict stands above.
    return text[:MOST] + said


def _base(revision: str) -> Base:
    """The commit itself, if its predictions can be read and are its own; else a run of it, made here."""
    try:
        read_predictions(revision)
    except MedtuneError as error:
        reason = str(error)
    else:
        return Base(revision, None)
    print(f"{reason}\nrunning it here", file=sys.stderr)
    return Base(_made(revision), reason)


def _made(revision: str) -> str:
    """Run the pipeline of a commit in a copy that shares the cache; the commit of what it left."""
    with Repo() as repo:
        cache = str(repo.cache.local_cache_dir)
    with TemporaryDirectory(prefix="medtune-base-") as folder:
        git("clone", "--quiet", "--shared", "--no-checkout", ".", folder)
        git("checkout", "--quiet", "--detach", revision, cwd=folder)
        _dvc("config", "--quiet", "--local", "cache.dir", cache, cwd=folder)
        # Data of the user's own, if DVC has it; without it the run says what it lacks.
        _dvc("checkout", "--quiet", "--allow-missing", cwd=folder, may_fail=True)
        _dvc("repro", cwd=folder)
        git("add", "--all", cwd=folder)
        identity = ("-c", "user.name=medtune", "-c", "user.email=medtune@localhost")
        git(
            *identity, "commit", "--quiet", "--allow-empty", "--message", f"The run of {revision}", cwd=folder
        )
        git("fetch", "--quiet", folder, "HEAD")
        return git("rev-parse", "FETCH_HEAD").strip()


def _dvc(*arguments: str, cwd: str, may_fail: bool = False) -> None:
    # The stages' `python` is to be this one, also where its environment was not activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, cwd=cwd, env=os.environ | {"PATH": path}, stdout=sys.stderr)
    if result.returncode != 0 and not may_fail:
        raise MedtuneError(
            f"the base's `dvc {arguments[0]}` did not run to its end here; its output says why"
        )


def main() -> None:
    """Write the report; exit code 1 if the check fails."""
    parser = argparse.ArgumentParser(prog="make pull-request-report", description="BASE=COMMIT")
    parser.add_argument("base", help="a commit or branch, such as origin/main")
    parser.add_argument("--output", type=Path, default=Path("pull-request.md"), help="default: %(default)s")
    arguments = parser.parse_args()
    found = report(arguments.base)
    write_text(arguments.output, found.text)
    print(found.text.splitlines()[1].removeprefix("### "))
    print(f"the comment: {arguments.output}")
    if found.failed:
        raise MedtuneError(found.failed)


if __name__ == "__main__":
    run(main)
