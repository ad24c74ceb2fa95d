"""docs/experiments.md: every block of it is run, in its order, in a repository with a tiny model."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from medtune.core.yaml_file import read_yaml
from medtune.run.lock_file import read_lock
from tests.conftest import CHATML, ROOT, build_tiny_llama, build_tokenizer
from tests.project import commit, environment, repro, run
from tests.tiny import build_tiny_base, create_tiny_project, save_base

PAGE = (ROOT / "docs/experiments.md").read_text()
SETTINGS: dict[str, object] = {
    "answer.examples_per_kind": 6,
    "answer.max_new_tokens": 6,
    "finetune.epochs": 2,
}
WEIGHTS = "models/adapter/adapter_model.safetensors"
NOTES = ".dvc/tmp/exps/tmp*/.dvc/tmp/medtune-finetune.pid"
"""Of the experiments of the queue, the numbers of the processes that train."""
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Test"), ("EMAIL", "test@localhost"))
}
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Block:
    """A block of shell commands, the words of the comment above it, and the section that it is in."""

    section: str
    note: str
    commands: str


def blocks() -> Iterator[Block]:
    for section in PAGE.split("\n## ")[1:]:
        for note, commands in re.findall(r"(?:<!-- (.*?) -->\n)?```bash\n(.*?)```", section, re.DOTALL):
            yield Block(section.splitlines()[0], note, commands)


class Reader:
    """Somebody who reads the page and types what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.colleague = folder, folder / "medtune", folder / "colleague"
        self.env = IDENTITY | {"MEDTUNE_PROGRESS": str(folder / "progress"), "COLUMNS": "200"}
        self.said: dict[str, str] = {}
        create_tiny_project(self.project, build_tiny_base(folder / "base"), SETTINGS, prepared=False)
        run("medtune", "add", cwd=self.project)
        run("git", "branch", "--move", "main", cwd=self.project)
        repro(self.project, env=self.env)
        commit(self.project, "A run")
        run("git", "init", "--quiet", "--bare", str(folder / "hub.git"), cwd=folder)
        run("git", "remote", "add", "origin", str(folder / "hub.git"), cwd=self.project)

    def type_in(self, block: Block) -> None:
        """Run a block in bash; what it prints counts to its section."""
        if block.note == "in the colleague's clone":
            run(
                "git",
                "clone",
                "--quiet",
                "--branch",
                "main",
                str(self.folder / "hub.git"),
                "colleague",
                cwd=self.folder,
            )
        elif block.note == "after dvc exp run was killed":
            self.kill_one()
        elif block.note == "after the worker was killed":
            self.kill_a_worker()
        elif block.note == "with profiles/mine.yaml":
            self.write_profile()
        folder = self.colleague if block.note == "in the colleague's clone" else self.project
        # To a file: the workers of the queue live on, and would keep a pipe open.
        output = self.folder / "printed"
        with output.open("w") as file:
            command = ("bash", "-euo", "pipefail", "-c", block.commands)
            code = subprocess.run(
                command, cwd=folder, env=environment(self.env), stdout=file, stderr=file
            ).returncode
        printed = output.read_text()
        assert code == 0, f"{block.commands}\n{printed}"
        self.said[block.section] = self.said.get(block.section, "") + printed
        if "queue start" in block.commands:
            self.wait_for_the_queue()

    def wait_for_the_queue(self) -> None:
        while re.search("Queued|Running", status := run("dvc", "queue", "status", cwd=self.project)):
            time.sleep(0.5)
        assert status.count("Success") == 4, run("dvc", "queue", "logs", "grid-1", cwd=self.project)
        run("dvc", "queue", "stop", cwd=self.project)

    def kill_one(self) -> None:
        (self.project / "README.md").write_text("edited, not committed")
        command = ["dvc", "exp", "run", "--set-param", "finetune.warmup=0.2", "finetune"]
        process = subprocess.Popen(
            command, cwd=self.project, env=environment(self.env), start_new_session=True
        )
        known = set(self.folder.glob("progress/*/finetune-*/*/checkpoint-6"))
        while not set(self.folder.glob("progress/*/finetune-*/*/checkpoint-6")) - known:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        status = run("git", "status", cwd=self.project)
        assert status.startswith("HEAD detached")
        assert "params.yaml" in status
        assert "deleted:    metrics/training.json" in status

    def kill_a_worker(self) -> None:
        later = ("--name", "later", "--set-param", "finetune.warmup=0.3", "finetune")
        run("dvc", "exp", "run", "--queue", *later, cwd=self.project)
        with (self.folder / "printed").open("w") as file:
            start = ["dvc", "queue", "start"]
            subprocess.run(
                start, cwd=self.project, env=environment(self.env), stdout=file, stderr=file, check=True
            )
        while not (numbers := [note.read_text() for note in self.project.glob(NOTES)]) or not numbers[0]:
            time.sleep(0.02)
        # The worker, the experiment and the stage are one process group.
        os.killpg(os.getpgid(int(numbers[0])), signal.SIGKILL)
        assert re.search(r"later .*Running", run("dvc", "queue", "status", cwd=self.project))

    def write_profile(self) -> None:
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        tokenizer = build_tokenizer(CHATML, special, "<|im_start|>", "<|im_end|>")
        other = save_base(build_tiny_llama(layers=1), tokenizer, self.folder / "other")
        model = {key.removeprefix("model."): value for key, value in other.items()}
        profile = yaml.safe_dump({"model": model})
        (self.project / "profiles/mine.yaml").write_text(f"# A smaller model\n{profile}")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    found = Reader(tmp_path_factory.mktemp("reader"))
    for block in blocks():
        found.type_in(block)
    return found


def tip(project: Path, name: str) -> str:
    return run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}", cwd=project).strip()


def weights(project: Path, revision: str) -> str:
    """The hash of the adapter in the `dvc.lock` of a revision."""
    stages = yaml.safe_load(run("git", "show", f"{revision}:dvc.lock", cwd=project))["stages"]
    return next(out["md5"] for out in stages["finetune"]["outs"] if out["path"] == WEIGHTS)


def test_every_command_of_the_page_is_in_a_block_that_ran(reader: Reader) -> None:
    assert PAGE.count("```bash\n") == len([*blocks()])
    assert {block.section for block in blocks()} == {*reader.said}


def test_two_workers_make_what_one_run_makes(reader: Reader) -> None:
    project, env = reader.project, reader.env | {"MEDTUNE_PROGRESS": str(reader.folder / "elsewhere")}
    grid = ("--set-param", "finetune.lora.r=16", "--set-param", "finetune.learning_rate=2e-4")
    run("dvc", "exp", "run", "--temp", "--force", "--name", "single", *grid, "finetune", cwd=project, env=env)
    assert weights(project, tip(project, "single")) == weights(project, tip(project, "grid-3"))
    assert weights(project, tip(project, "grid-4")) != weights(project, tip(project, "grid-3"))


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
    assert "Running stage 'answer-tuned'" in said
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
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert yaml.safe_load(shown) | {"space": ...} == read_yaml(ROOT / "searches/lora.yaml") | {"space": ...}
    assert re.search(r"lora-\w{8}-1, 2 of 2: finetune\.learning_rate=", reader.said["A search beyond grids"])


def test_two_models_stand_side_by_side(reader: Reader) -> None:
    said = reader.said["Two models, or two data sets"]
    assert re.search(r"^other-model ", said, re.MULTILINE)
    assert "exact answers" in said
    assert weights(reader.project, "other-model") != weights(reader.project, "main")
    assert (
        read_lock(reader.project / "dvc.lock")
        == yaml.safe_load(run("git", "show", "main:dvc.lock", cwd=reader.project))["stages"]
    )
    assert run("dvc", "status", cwd=reader.project).strip() == "Data and pipelines are up to date."
