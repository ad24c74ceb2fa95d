"""Kill the pipeline at random moments and see whether it ends as if nothing had happened.

    make faults                                    20 kills, about 15 minutes on two cores
    python -m tests.faults --kills 5 --seed 3

The pipeline is the real one, with the real model, at reduced sizes and in a repository of its own.
Each round starts from a finished run, edits `params.yaml` so that every stage has to run, starts
`dvc repro`, sends a signal to its whole process group, and runs plain `dvc repro` again. A round counts
as survived if `dvc.lock` is then, byte for byte, that of a run nobody disturbed, and no progress is left
but of stages that are done and that it names. In every other round, what had been there before is fetched
back in between with `dvc checkout`. Work done is what the progress bar of the stage had reached, in steps or
answers; kept is where the next start went on.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.core.outputs import read_json
from medtune.run.lock_file import entries, read_lock
from medtune.run.progress import MARK
from tests.conftest import edit_params
from tests.project import LONGEST, STAGES, commit, create_project, environment, repro, run

EDIT: dict[str, object] = {"data.seed": 8, "finetune.seed": 8}
ADAPTER = "models/adapter/adapter_model.safetensors"


@dataclass(frozen=True)
class Outcome:
    """What a round did: the signal and its moment, the stage it hit, what came of it.

    `done` and `kept` are steps of a training or answers; a stage that takes seconds counts none.
    """

    signal: str
    moment: str
    stage: str
    done: int
    kept: int
    survived: bool

    def __str__(self) -> str:
        done, kept = (f"{self.done}", f"{self.kept}") if self.done else ("-", "-")
        verdict = "yes" if self.survived else "NO"
        return f"{self.signal:<8}{self.moment:<22}{self.stage:<14}{done:>5}{kept:>6}  {verdict}"


class Victim:
    """A repository with a finished run, an edit to be run, and what an undisturbed run makes of it."""

    def __init__(self, project: Path) -> None:
        self.progress = project.parent / "progress"
        self.env = {"MEDTUNE_PROGRESS": str(self.progress)}
        self.project = project
        repro(self.project, env=self.env)
        commit(self.project, "Before")
        self._before = self._adapter()
        self.edit()
        start = time.monotonic()
        assert repro(self.project, env=self.env) == set(STAGES)
        self.seconds = time.monotonic() - start
        self._expected = self._lock.read_bytes()
        assert self._adapter() != self._before

    @property
    def _lock(self) -> Path:
        return self.project / "dvc.lock"

    def edit(self) -> None:
        """Change parameters so that every stage has to run."""
        edit_params(self.project / "params.yaml", EDIT)

    def reset(self) -> None:
        """Back to the finished run; nothing is to know of the edited one."""
        self.restore()
        shutil.rmtree(self.project / ".dvc/cache/runs")
        shutil.rmtree(self.progress)

    def restore(self) -> None:
        """Get the finished run back as a user would, whatever state the folder is in."""
        run("git", "checkout", "--quiet", ".", cwd=self.project)
        run("dvc", "checkout", "--force", cwd=self.project)
        assert self._adapter() == self._before

    def restore_and_come_back(self) -> None:
        """Look at the earlier results in the middle of an interrupted run."""
        unfinished = self._lock.read_bytes()
        self.restore()
        self.edit()
        self._lock.write_bytes(unfinished)

    def start(
        self,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        command: Sequence[str] = ("dvc", "repro"),
    ) -> subprocess.Popen[str]:
        """A command in a process group of its own; `before` runs in the new process."""
        return subprocess.Popen(
            command,
            cwd=self.project,
            env=environment(self.env | dict(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=before,
        )

    def step(self) -> int:
        """The step of the newest checkpoint in progress, finished or not; 0 if there is none."""
        checkpoints = self.progress.glob("medtune-progress/finetune-*/*/checkpoint-*")
        return max((int(path.name.removeprefix("checkpoint-")) for path in checkpoints), default=0)

    def finish(self) -> tuple[bool, str]:
        """Run plain `dvc repro` to its end: whether the run looks undisturbed, and what it printed."""
        printed = run("dvc", "repro", cwd=self.project, env=self.env)
        return self.is_undisturbed(), printed

    def take_experiment(self, name: str) -> None:
        """Bring a finished experiment into the workspace."""
        run("git", "checkout", "--quiet", ".", cwd=self.project)
        run("dvc", "exp", "apply", name, cwd=self.project)
        run("dvc", "exp", "remove", name, cwd=self.project)

    def is_undisturbed(self) -> bool:
        """Whether the lock is that of a run nobody disturbed, and names what all progress left was for."""
        recorded = {(entry.stage, entry.path, entry.md5) for entry in entries(read_lock(self._lock))}
        left = self.progress.glob("medtune-progress/*/*/")
        return self._lock.read_bytes() == self._expected and all(_left(place) <= recorded for place in left)

    def _adapter(self) -> str:
        return hashlib.sha256((self.project / ADAPTER).read_bytes()).hexdigest()


def _left(place: Path) -> set[tuple[str, str, str]]:
    """What the stage of a place left there: its name, with each output and hash."""
    mark = read_json(place / MARK)
    return {(mark["stage"], path, md5) for path, md5 in mark.get("outputs", {"unfinished": ""}).items()}


def kill_round(victim: Victim, rng: random.Random, number: int) -> Outcome:
    """Disturb one run and finish it; every third kill is aimed at the writing of a checkpoint."""
    victim.reset()
    victim.edit()
    sent = signal.SIGTERM if number % 5 == 4 else signal.SIGKILL
    process = victim.start()
    if number % 3 == 0:
        step, delay = rng.randint(1, 5), rng.uniform(0.0, 0.3)
        moment = f"checkpoint {step} + {delay:.2f} s"
        while victim.step() < step and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay)
    else:
        delay = rng.uniform(0.0, victim.seconds)
        moment = f"{delay:.1f} s"
        time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, sent)
    printed, _ = process.communicate(timeout=LONGEST)
    _, _, last = printed.rpartition("Running stage '")
    stage = last.partition("'")[0] if last != printed else "-"
    if number % 2:
        victim.restore_and_come_back()
    survived, printed = victim.finish()
    kept = max(map(int, re.findall(rf"{stage}: going on (?:from step|after) (\d+)", printed)), default=0)
    # The bar is drawn ten times a second at most: it may be behind.
    done = max([kept, *map(int, re.findall(r"(\d+)/\d+ \[", last))])
    return Outcome(sent.name, moment, stage, done, kept, survived)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill the pipeline at random moments.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        print("two undisturbed runs, to compare with ...", flush=True)
        victim = Victim(create_project(Path(folder) / "medtune", {"finetune.evaluate_every": 1}))
        print(f"the second took {victim.seconds:.0f} s\n", flush=True)
        print(f"{'kill':>4}  {'signal':<8}{'moment':<22}{'in stage':<14}{'done':>5}{'kept':>6}  same bytes")
        outcomes = []
        for number in range(arguments.kills):
            outcome = kill_round(victim, rng, number)
            outcomes.append(outcome)
            print(f"{number + 1:>4}  {outcome}", flush=True)
    survived = sum(outcome.survived for outcome in outcomes)
    done, kept = sum(outcome.done for outcome in outcomes), sum(outcome.kept for outcome in outcomes)
    figures = {"kills": len(outcomes), "survived": survived, "done": done, "kept": kept}
    print(json.dumps(figures | {"seed": arguments.seed}))
    sys.exit(survived < len(outcomes))


if __name__ == "__main__":
    main()
