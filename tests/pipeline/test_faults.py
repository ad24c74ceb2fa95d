"""Whatever happens to a run, plain `dvc repro` ends with the bytes of an undisturbed one."""

import os
import random
import re
import resource
import signal
from pathlib import Path

import pytest

from tests.faults import Victim, kill_round
from tests.project import LONGEST, attempt, finish_queue, run, start_queue, wait_until
from tests.tiny import build_tiny_base, create_tiny_project

pytestmark = pytest.mark.slow

RAISES = """
import os, pathlib, signal, sys

if "stages.finetune" in sys.orig_argv:
    def fail(*_):
        progress = pathlib.Path(os.environ["MEDTUNE_PROGRESS"], "medtune-progress")
        if any(progress.glob("finetune-*/*/checkpoint-1/manifest.json")):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise RuntimeError("a fault in the code")

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
"""
"""As `sitecustomize.py`: finetune raises once its first checkpoint is whole, whatever it is doing then."""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """As that of `make faults`, but with a tiny model, whose training is long and whose adapter is large."""
    folder = tmp_path_factory.mktemp("faults")
    params = {
        "finetune.evaluate_every": 1,
        "finetune.epochs": 4,
        "finetune.lora.r": 128,
        "answer.max_new_tokens": 4,
    }
    project = create_tiny_project(
        folder / "medtune", build_tiny_base(folder / "base"), params, prepared=False
    )
    run("medtune", "add", cwd=project)
    return Victim(project)


def limit_file_size() -> None:
    """Room for the adapter's weights (500 kB), not for the optimizer's state (1 MB)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (800 * 2**10, 800 * 2**10))


def test_every_fault_in_turn(victim: Victim, tmp_path: Path) -> None:
    victim.reset()
    victim.edit()

    full_disk = victim.start(before=limit_file_size)
    printed, _ = full_disk.communicate(timeout=LONGEST)
    assert full_disk.returncode != 0
    assert re.search(r"error: .*checkpoint-1: not written: ", printed)
    assert "Traceback" not in printed

    (tmp_path / "sitecustomize.py").write_text(RAISES)
    raising = victim.start({"PYTHONPATH": str(tmp_path)})
    printed, _ = raising.communicate(timeout=LONGEST)
    assert raising.returncode != 0
    assert "a fault in the code" in printed
    victim.restore_and_come_back()

    reached = victim.step()
    abandoned = victim.start()
    wait_until(lambda: victim.step() != reached, abandoned)
    orphan = int((victim.project / ".dvc/tmp/medtune-finetune.pid").read_text())
    os.kill(orphan, signal.SIGSTOP)
    abandoned.send_signal(signal.SIGTERM)
    abandoned.wait(LONGEST)
    refused = attempt("dvc", "repro", cwd=victim.project, env=victim.env)
    assert refused.returncode != 0
    assert f"error: finetune still runs in this folder, as process {orphan};" in refused.stderr
    os.kill(orphan, signal.SIGKILL)
    abandoned.communicate(timeout=LONGEST)

    same, printed = victim.finish()
    assert "going on from step" in printed
    assert same


def test_a_kill_at_a_random_moment(victim: Victim) -> None:
    """One of those of `make faults`."""
    outcome = kill_round(victim, random.Random(0), 0)
    assert outcome.survived, outcome


@pytest.mark.parametrize("options", [(), ("--temp",)], ids=["workspace", "temp"])
def test_a_killed_experiment_goes_on(victim: Victim, options: tuple[str, ...]) -> None:
    victim.reset()
    victim.edit()
    command = ["dvc", "exp", "run", *options]
    process = victim.start(command=command)
    wait_until(lambda: victim.step() >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=LONGEST)
    printed = run(*command, "--name", "again", cwd=victim.project, env=victim.env)
    assert "going on from step" in printed
    victim.take_experiment("again")
    assert victim.is_undisturbed()


def test_a_killed_queue_goes_on(victim: Victim) -> None:
    victim.reset()
    victim.edit()

    def queue(name: str) -> None:
        run("dvc", "exp", "run", "--queue", "--name", name, cwd=victim.project, env=victim.env)
        start_queue(victim.project, victim.env)

    queue("first")
    wait_until(lambda: victim.step() >= 2)
    (note,) = victim.project.glob(".dvc/tmp/exps/*/.dvc/tmp/medtune-finetune.pid")
    # The worker, the experiment and the stage are one process group.
    os.killpg(os.getpgid(int(note.read_text())), signal.SIGKILL)
    assert victim.step() >= 2
    queue("second")
    # Of the first DVC says that it still runs, whatever has become of it.
    assert re.search("second .*Success", finish_queue(victim.project, "second", victim.env))
    assert "going on from step" in run("dvc", "queue", "logs", "second", cwd=victim.project)
    run("dvc", "queue", "stop", cwd=victim.project)
    victim.take_experiment("second")
    assert victim.is_undisturbed()
