"""docs/experiments.md: every block of it is run, in its order, in a repository with a pipeline of its own.

Its stages have names and parameters of the real ones and take no time. That two workers of the queue make
what one run makes is shown with a real model, a tiny one.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from medtune.core.yaml_file import parse_yaml, read_yaml
from medtune.run.lock_file import read_lock
from tests.blocks import Block, blocks
from tests.conftest import ROOT
from tests.project import LONGEST, commit, environment, finish_queue, run, start_queue, wait_until
from tests.tiny import build_tiny_base, create_tiny_project

PAGE = ROOT / "docs/experiments.md"
STAGE = """\
import json, os, time
from pathlib import Path
from ruamel.yaml import YAML

params = YAML(typ="safe").load(Path("params.yaml"))
rank, rate, warmup = (params["finetune"][name] for name in ("lora", "learning_rate", "warmup"))
rank = rank["r"]
Path(".dvc/tmp/medtune-finetune.pid").write_text(str(os.getpid()))
if warmup in (0.2, 0.3):
    time.sleep(600)
Path("models/adapter").mkdir(exist_ok=True, parents=True)
Path("models/adapter/adapter_model.safetensors").write_text(f"{rank} {rate} {params['model']['source']}")
Path("metrics/curves").mkdir(exist_ok=True, parents=True)
loss = 1 / rank + rate
Path("metrics/curves/loss.csv").write_text(f"step,examples,loss\\n9,validation,{loss}\\n")
Path("metrics/training.json").write_text(json.dumps({"validation_loss": loss}))
"""
EVALUATE = """\
import json
from pathlib import Path

said = Path("models/adapter/adapter_model.safetensors").read_text()
rows = [{"question": f"{n}?", "ground_truth": "16 0.0002", "prediction": said[:9]} for n in range(9)]
Path("metrics/evaluation_results.json").write_text(json.dumps({"results": rows}))
Path("metrics/evaluation.json").write_text(json.dumps({"accuracy": float(said[:9] == "16 0.0002")}))
"""
PIPELINE = """\
stages:
  prepare:
    cmd: python -c ''
    deps: [data/raw/mine.jsonl]
  finetune:
    cmd: python finetune.py
    params: [model, finetune]
    deps: [finetune.py]
    outs:
      - models/adapter/adapter_model.safetensors
    metrics:
      - metrics/training.json: {cache: false}
    plots:
      - metrics/curves/loss.csv: {cache: false, x: step, y: loss}
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, models/adapter/adapter_model.safetensors]
    outs:
      - metrics/evaluation_results.json
    metrics:
      - metrics/evaluation.json: {cache: false}
"""
PROFILE = """\
# Another model
model: {source: ./other, sha256: %s, license: mit}
"""
FILES = {
    "dvc.yaml": PIPELINE,
    "finetune.py": STAGE,
    "evaluate.py": EVALUATE,
    "data/raw/mine.jsonl": "{}",
    "README.md": "as it was committed",
    ".gitignore": "/models/\n/metrics/evaluation_results.json\n",
    "profiles/mine.yaml": PROFILE % ("a" * 64),
}
WEIGHTS = "models/adapter/adapter_model.safetensors"
NOTE = ".dvc/tmp/medtune-finetune.pid"
"""In the folder of a training, the number of its process."""
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Test"), ("EMAIL", "test@localhost"))
}


def commands() -> list[Block]:
    return [block for block in blocks(PAGE) if block.is_commands]


def section(block: Block) -> str:
    """The heading above a block."""
    above = PAGE.read_text().splitlines()[: block.line]
    return next(line.removeprefix("## ") for line in reversed(above) if line.startswith("## "))


class Reader:
    """Somebody who reads the page and types what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.colleague = folder, folder / "medtune", folder / "colleague"
        self.env = IDENTITY | {"COLUMNS": "200"}
        self.said: dict[str, str] = {}
        for name, text in FILES.items():
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(text)
        shutil.copytree(ROOT / "searches", self.project / "searches")
        shutil.copy2(ROOT / "params.yaml", self.project)
        run("git", "init", "--quiet", "--initial-branch", "main", cwd=self.project)
        run("dvc", "init", "--quiet", cwd=self.project)
        for name in (".gitignore", "config"):
            shutil.copy2(ROOT / ".dvc" / name, self.project / ".dvc")
        run("dvc", "repro", "--quiet", cwd=self.project)
        commit(self.project, "A run")
        run("git", "init", "--quiet", "--bare", str(folder / "hub.git"), cwd=folder)
        run("git", "remote", "add", "origin", str(folder / "hub.git"), cwd=self.project)

    def type_in(self, block: Block) -> None:
        """Run a block in bash; what it prints counts to its section."""
        folder = self.project
        if "dvc exp pull" in block.text:
            folder = self.colleague
            run("git", "clone", "--quiet", "--branch", "main", "hub.git", "colleague", cwd=self.folder)
        elif "EXEC_MERGE" in block.text:
            self.kill_one()
        elif "dvc queue kill" in block.text:
            self.kill_a_worker()
        printed = self.run(["bash", "-euo", "pipefail", "-c", block.text], folder)
        self.said[section(block)] = self.said.get(section(block), "") + printed
        if "queue start" in block.text:
            self.wait_for_the_queue()

    def run(self, command: list[str], folder: Path) -> str:
        # To a file: the workers of the queue live on, and would keep a pipe open.
        output = self.folder / "printed"
        with output.open("w") as file:
            done = subprocess.run(
                command, cwd=folder, env=environment(self.env), stdout=file, stderr=file, timeout=LONGEST
            )
        printed = output.read_text()
        assert done.returncode == 0, f"{command}\n{printed}"
        return printed

    def wait_for_the_queue(self) -> None:
        wait_for_the_queue(self.project, self.env)
        run("dvc", "queue", "stop", cwd=self.project)

    def kill_one(self) -> None:
        (self.project / "README.md").write_text("edited, not committed")
        (self.project / NOTE).unlink(missing_ok=True)
        command = ["dvc", "exp", "run", "--set-param", "finetune.warmup=0.2", "finetune"]
        process = subprocess.Popen(
            command, cwd=self.project, env=environment(self.env), start_new_session=True
        )
        wait_for_a_number(self.project, NOTE)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(LONGEST)
        status = run("git", "status", cwd=self.project)
        assert status.startswith("HEAD detached")
        assert "params.yaml" in status
        assert "deleted:    metrics/training.json" in status

    def kill_a_worker(self) -> None:
        later = ["--name", "later", "--set-param", "finetune.warmup=0.3", "finetune"]
        self.run(["dvc", "exp", "run", "--queue", *later], self.project)
        self.run(["dvc", "queue", "start"], self.project)
        number = wait_for_a_number(self.project, f".dvc/tmp/exps/tmp*/{NOTE}")
        # The worker, the experiment and the stage are one process group.
        os.killpg(os.getpgid(number), signal.SIGKILL)
        assert re.search(r"later .*Running", run("dvc", "queue", "status", cwd=self.project))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    found = Reader(tmp_path_factory.mktemp("reader"))
    for block in commands():
        found.type_in(block)
    return found


def wait_for_a_number(folder: Path, pattern: str) -> int:
    def numbers() -> list[str]:
        return [text for note in folder.glob(pattern) if (text := note.read_text())]

    wait_until(numbers)
    return int(numbers()[0])


def wait_for_the_queue(project: Path, env: Mapping[str, str]) -> None:
    status = finish_queue(project, env=env)
    assert "Failed" not in status
    assert "Success" in status


def tip(project: Path, name: str) -> str:
    return run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}", cwd=project).strip()


def weights(project: Path, revision: str) -> str:
    """The hash of the adapter in the `dvc.lock` of a revision."""
    stages = yaml.safe_load(run("git", "show", f"{revision}:dvc.lock", cwd=project))["stages"]
    return next(out["md5"] for out in stages["finetune"]["outs"] if out["path"] == WEIGHTS)


def test_every_command_of_the_page_is_in_a_block_that_ran(reader: Reader) -> None:
    assert {section(block) for block in commands()} == {*reader.said}
    text = "".join(block.text for block in commands())
    assert {*re.findall(r"^medtune (\S+)", text, re.MULTILINE)} == {"runs", "diff", "search", "use"}


@pytest.mark.slow
def test_two_workers_at_once_make_what_one_run_makes(tmp_path: Path) -> None:
    project = create_tiny_project(
        tmp_path / "medtune", build_tiny_base(tmp_path / "base"), {"finetune.lora.r": 16}, prepared=False
    )
    run("medtune", "add", cwd=project)
    commit(project, "Data")
    ranks = ("--set-param", "finetune.lora.r=8,16", "finetune")
    run("dvc", "exp", "run", "--queue", "--name", "rank", *ranks, cwd=project)
    env = {"MEDTUNE_PROGRESS": str(tmp_path / "queue"), "GOMP_SPINCOUNT": "0"}
    start_queue(project, env, jobs=2)
    wait_for_the_queue(project, env)
    run("dvc", "queue", "stop", cwd=project)
    shutil.rmtree(project / ".dvc/cache/runs", ignore_errors=True)
    alone = {"MEDTUNE_PROGRESS": str(tmp_path / "alone")}
    assert "Running stage 'finetune'" in run("dvc", "repro", "finetune", cwd=project, env=alone)
    (made,) = (
        out["md5"] for out in read_lock(project / "dvc.lock")["finetune"]["outs"] if out["path"] == WEIGHTS
    )
    assert read_yaml(project / "params.yaml")["finetune"]["lora"]["r"] == 16
    assert weights(project, tip(project, "rank-2")) == made
    assert weights(project, tip(project, "rank-1")) != made


def test_a_grid_is_shown_with_its_losses_and_without_figures_of_the_commit(reader: Reader) -> None:
    rows = {
        line.split()[0]: line.split() for line in reader.said["Watching and comparing"].splitlines() if line
    }
    for name in ("grid-1", "grid-2", "grid-3", "grid-4"):
        assert rows[name][-2:] == ["in", "part"]
        # Its own rate and rank, its validation loss, and no other figure.
        assert len(rows[name]) == 6


def test_the_one_that_is_applied_is_trained_already_and_then_judged(reader: Reader) -> None:
    said = reader.said["Taking one"]
    assert "Running stage 'evaluate'" in said
    assert "Running stage 'finetune'" not in said
    assert "exact answers" in said
    assert weights(reader.project, "higher-rank") == weights(reader.project, tip(reader.project, "grid-3"))


def test_a_colleague_gets_its_parameters_and_its_adapter(reader: Reader) -> None:
    assert "grid-3" in reader.said["Sharing"]
    assert read_yaml(reader.colleague / "params.yaml")["finetune"]["lora"]["r"] == 16
    assert (reader.colleague / WEIGHTS).is_file()
    assert tip(reader.project, "grid-1") == ""


def test_after_a_kill_everything_is_as_it_was_and_the_edit_is_back(reader: Reader) -> None:
    assert "Switched to branch 'main'" in reader.said["What a killed one leaves"]
    assert "Removed tasks in queue: later" in reader.said["What a killed one leaves"]
    assert run("git", "show", "other-model:README.md", cwd=reader.project) == "edited, not committed"


def test_a_search_on_the_page_is_the_shipped_one_and_says_what_came_of_it(reader: Reader) -> None:
    (shown,) = (block.text for block in blocks(PAGE) if block.language == "yaml")
    assert parse_yaml(shown, PAGE) == read_yaml(ROOT / "searches/lora.yaml")
    assert re.search(r"lora-\w{8}-2, 2 of 2: finetune\.learning_rate=", reader.said["A search beyond grids"])


def test_two_models_stand_side_by_side(reader: Reader) -> None:
    said = reader.said["Two models, or two data sets"]
    assert re.search(r"^other-model ", said, re.MULTILINE)
    assert "exact answers" in said
    assert weights(reader.project, "other-model") != weights(reader.project, "main")
    here = (reader.project / "dvc.lock").read_text()
    assert here == run("git", "show", "main:dvc.lock", cwd=reader.project)
    assert run("dvc", "status", cwd=reader.project).strip() == "Data and pipelines are up to date."
