"""The real pipeline at reduced sizes, in a repository of its own, run as a user runs it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, edit_params

REDUCED: dict[str, object] = {
    "data.kinds.organ_system.train": 64,
    "finetune.evaluate_every": 3,
    "answer.examples_per_kind": 6,
    "answer.max_new_tokens": 12,
}
for kind in ("organ_system", "medical_term", "definition", "finding"):
    REDUCED.setdefault(f"data.kinds.{kind}.train", 8)
    REDUCED[f"data.kinds.{kind}.validation"] = 5
    REDUCED[f"data.kinds.{kind}.test"] = 8
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
"""In an order in which they can run, those that were added to the shipped ones included."""
LONGEST = 1200
"""Seconds that no command of a test takes."""
MADE = ("dvc.lock", "digests/", "metrics/", "models/record.json")
"""What a run leaves in git, as prefixes."""


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables, with the programs of its Python environment first on the path."""
    binaries = Path(sys.executable).parent
    return os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"} | dict(changes or {})


def attempt(
    *command: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; it may fail. One that does not end is an error, and not the end of CI."""
    return subprocess.run(
        command, cwd=cwd, env=environment(env), capture_output=True, text=True, timeout=LONGEST
    )


def wait_until(
    condition: Callable[[], object], process: subprocess.Popen[Any] | None = None, seconds: float = 300
) -> None:
    """Look again and again until a condition holds; an error once that takes too long.

    So it is once the process that is to bring it about has ended.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.01)


def finish_queue(project: Path, name: str = "", env: Mapping[str, str] | None = None) -> str:
    """Wait until all of DVC's queue is done, or the experiment of a name, and return the last status.

    A worker that sees nothing to do for a moment goes, and may leave what was queued meanwhile
    (https://github.com/treeverse/dvc/issues/10562): then, as a user would, another is started.
    """
    end = time.monotonic() + LONGEST
    while left := re.search(
        f"{name}.*(Queued|Running)", status := run("dvc", "queue", "status", cwd=project)
    ):
        assert time.monotonic() < end, status
        if left[1] == "Queued" and "0 active, 0 idle" in status:
            start_queue(project, env)
        time.sleep(2)
    return status


def start_queue(project: Path, env: Mapping[str, str] | None = None, jobs: int = 1) -> None:
    """`dvc queue start`, whose workers live on: they keep a pipe open, and reading it would wait for them."""
    command = ("dvc", "queue", "start", "--jobs", str(jobs))
    output = subprocess.DEVNULL
    subprocess.run(
        command, cwd=project, env=environment(env), stdout=output, stderr=output, timeout=LONGEST, check=True
    )


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command in a folder and return what it printed; on failure show that."""
    result = attempt(*command, cwd=cwd, env=env)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def commit(folder: Path, message: str) -> None:
    """Commit everything in a folder."""
    run("git", "add", "--all", cwd=folder)
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    run("git", *identity, "commit", "--quiet", "--message", message, cwd=folder)


def repro(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> set[str]:
    """Run `dvc repro` and return the stages that ran."""
    return set(re.findall(r"Running stage '([\w-]+)'", run("dvc", "repro", *options, cwd=folder, env=env)))


def create_project(folder: Path, params: Mapping[str, object] | None = None) -> Path:
    """A repository with the files of this one, at reduced sizes, before its first run."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in listed.splitlines():
        if (ROOT / name).is_file() and (not name.startswith(MADE) or name.endswith(".gitignore")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    edit_params(folder / "params.yaml", REDUCED | dict(params or {}))
    commit(folder, "At reduced sizes")
    return folder
