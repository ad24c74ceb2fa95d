"""Remotes as they are used: a folder, an OpenSSH server, an S3 API; and what happens when they fail."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from medtune.run.lock_file import read_lock
from tests.conftest import edit_params
from tests.project import LONGEST, attempt, commit, environment, repro, run, wait_until
from tests.servers import Bucket, Folder, Storage, s3_server, ssh_server

pytestmark = pytest.mark.slow

WEIGHTS = "models/adapter/adapter_model.safetensors"
MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
CHECK = (*MEDTUNE, "check-remote")


@dataclass
class Team:
    """A finished project whose default remote is `storage`, and clones of it on other machines."""

    storage: Storage
    first: Path

    def clone(self, name: str, credentials: bool = True) -> Path:
        folder = self.first.parent / name
        run("git", "clone", "--quiet", str(self.first), str(folder), cwd=self.first)
        if credentials:
            self.give_credentials(folder)
        return folder

    def give_credentials(self, folder: Path) -> None:
        for option, value in self.storage.credentials.items():
            run("dvc", "remote", "modify", "--local", "storage", option, value, cwd=folder)

    def is_complete(self, folder: Path) -> bool:
        """Whether a clone has the first machine's files and nothing to run."""
        same = (folder / WEIGHTS).read_bytes() == (self.first / WEIGHTS).read_bytes()
        return same and repro(folder) == set() and run("git", "status", "--porcelain", cwd=folder) == ""

    def weights_object(self) -> str:
        """The name that the adapter's weights have in the storage."""
        digest = hashlib.md5((self.first / WEIGHTS).read_bytes()).hexdigest()
        return next(name for name in self.storage.names() if name.endswith(f"{digest[:2]}/{digest[2:]}"))


@pytest.fixture(scope="module")
def create_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Storage]:
    def create(name: str) -> Storage:
        path = tmp_path_factory.mktemp("storage") / name
        path.mkdir()
        return Folder(str(path), path=path)

    return create


@pytest.fixture(scope="module")
def create_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Storage]]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as create:
        yield create


@pytest.fixture(scope="module")
def create_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Storage]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as create:
        yield create


@pytest.fixture
def team_on(request: pytest.FixtureRequest, finished_project: Path, tmp_path: Path) -> Callable[[str], Team]:
    """Makes a team with a new remote of a kind."""

    def build(kind: str) -> Team:
        name = hashlib.md5(request.node.name.encode()).hexdigest()
        storage: Storage = request.getfixturevalue(f"create_{kind}")(name)
        first = tmp_path / "first"
        shutil.copytree(finished_project, first, symlinks=True)
        for option, value in {"url": storage.url, **storage.settings}.items():
            run("dvc", "remote", "modify", "storage", option, value, cwd=first)
        commit(first, f"The remote is {kind}")
        team = Team(storage, first)
        team.give_credentials(first)
        return team

    return build


@pytest.fixture(params=["folder", "ssh", "s3"])
def team(request: pytest.FixtureRequest, team_on: Callable[[str], Team]) -> Team:
    return team_on(request.param)


def kill_once(cwd: Path, command: list[str], begun: Callable[[], bool]) -> None:
    """Start a command, and kill its process group as soon as it has begun."""
    process = subprocess.Popen(
        command, cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    wait_until(begun, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(LONGEST)


def test_a_clone_pulls_what_was_pushed_and_has_nothing_to_run(team: Team) -> None:
    second = team.clone("second")
    early = attempt(*MEDTUNE, "pull", cwd=second)
    assert (early.returncode, early.stderr.count("\n")) == (1, 1)
    assert re.search(r"(has nothing of this commit's run|is not there.*); make it here with", early.stderr)
    run("dvc", "push", cwd=team.first)
    run(*MEDTUNE, "pull", cwd=second)
    assert team.is_complete(second)


@pytest.mark.parametrize("kind", ["ssh", "s3"])
def test_credentials_are_needed_and_never_committed(team_on: Callable[[str], Team], kind: str) -> None:
    team = team_on(kind)
    run("dvc", "push", cwd=team.first)
    stranger = team.clone("stranger", credentials=False)
    refused = attempt("dvc", "pull", cwd=stranger)
    assert refused.returncode != 0
    assert f"ERROR: failed to connect to {kind}" in refused.stderr
    assert "Traceback" not in refused.stderr
    unchecked = attempt(*CHECK, cwd=stranger)
    assert unchecked.returncode == 1
    assert unchecked.stderr.startswith("error: remote (default): ")
    assert unchecked.stderr.count("\n") == 1
    committed = run("git", "grep", "--cached", "-h", "", "--", ".dvc", cwd=team.first)
    for option, value in team.storage.credentials.items():
        assert f"{option} = {value}" not in committed
    team.give_credentials(stranger)
    run("dvc", "pull", cwd=stranger)
    assert team.is_complete(stranger)


def test_an_interrupted_push_is_finished_by_the_next(team: Team) -> None:
    kill_once(team.first, ["dvc", "push", "--jobs", "1"], lambda: bool(team.storage.names()))
    second = team.clone("second")
    early = attempt("dvc", "pull", cwd=second)
    assert early.returncode != 0
    assert "ERROR: failed to pull data from the cloud" in early.stderr
    assert "pushed" in run("dvc", "push", cwd=team.first)
    run("dvc", "pull", cwd=second)
    assert team.is_complete(second)


def test_an_interrupted_pull_is_finished_by_the_next(team: Team) -> None:
    run("dvc", "push", cwd=team.first)
    second = team.clone("second")
    cache = second / ".dvc/cache/files"
    kill_once(
        second, ["dvc", "pull", "--jobs", "1"], lambda: any(path.is_file() for path in cache.rglob("*"))
    )
    assert not (second / WEIGHTS).exists()
    assert "fetched" in run("dvc", "pull", cwd=second)
    assert team.is_complete(second)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damage_in_a_remote_is_noticed_named_and_mended(team: Team, damage: str) -> None:
    run("dvc", "push", cwd=team.first)
    name = team.weights_object()
    content = team.storage.read(name)
    if damage == "missing":
        team.storage.delete(name)
    else:
        team.storage.write(name, content[:-1] + bytes([content[-1] ^ 1]))
    second = team.clone("second")
    failed = attempt("dvc", "pull", cwd=second)
    assert failed.returncode != 0
    assert "ERROR: failed to pull data from the cloud" in failed.stderr
    assert not (second / WEIGHTS).exists()

    named = attempt(*CHECK, cwd=second)
    assert named.returncode == 1
    # In a folder, DVC deletes what is damaged where it asks for its objects one by one.
    deleted = isinstance(team.storage, Folder) and name not in team.storage.names()
    word = "missing" if damage == "missing" or deleted else "damaged"
    assert f"{word}  {WEIGHTS}\n" in named.stdout
    assert "objects are missing or damaged; try --mend" in named.stderr
    cannot = attempt(*CHECK, "--mend", cwd=second)
    assert cannot.returncode == 1
    assert f"still {word}: {WEIGHTS}" in cannot.stdout
    assert "objects are whole" in run(*CHECK, "--mend", cwd=team.first)
    assert team.storage.read(name) == content
    run("dvc", "pull", cwd=second)
    assert team.is_complete(second)


def test_a_lost_folder_is_put_back_with_its_files(team_on: Callable[[str], Team]) -> None:
    team = team_on("folder")
    run("dvc", "push", cwd=team.first)
    lists = [name for name in team.storage.names() if name.endswith(".dir")]
    for name in [*lists, team.weights_object()]:
        team.storage.delete(name)
    result = attempt(*CHECK, "--json", cwd=team.first)
    assert result.returncode == 1
    missing = {entry["path"] for entry in json.loads(result.stdout) if entry["state"] == "missing"}
    assert missing == {"models/checkpoints", WEIGHTS}
    assert "objects are whole" in run(*CHECK, "--mend", cwd=team.first)
    second = team.clone("second")
    run("dvc", "pull", cwd=second)
    assert team.is_complete(second)


def test_what_every_copy_of_is_lost_is_made_again_byte_for_byte(team_on: Callable[[str], Team]) -> None:
    team = team_on("folder")
    run("dvc", "push", cwd=team.first)
    name = team.weights_object()
    team.storage.delete(name)
    second = team.clone("second")
    assert attempt("dvc", "pull", cwd=second).returncode != 0
    assert attempt("dvc", "checkout", cwd=second).returncode != 0
    assert repro(second) == {"finetune"}
    changed = run("git", "diff", "--name-only", cwd=second).split()
    assert set(changed) <= {"metrics/timing.json", "metrics/environment.json"}
    run(*CHECK, "--mend", cwd=second)
    assert team.weights_object() == name
    third = team.clone("third")
    run("dvc", "pull", cwd=third)
    assert team.is_complete(third)


def test_one_stage_or_the_adapter_alone_can_be_fetched(team_on: Callable[[str], Team]) -> None:
    team = team_on("folder")
    run("dvc", "push", cwd=team.first)
    second = team.clone("second")
    run("dvc", "pull", "finetune", cwd=second)
    assert (second / WEIGHTS).is_file()
    assert not (second / "data/prepared/train.jsonl").exists()
    run("dvc", "get", str(team.first), "models/adapter", "--out", "fetched", cwd=second.parent)
    fetched = second.parent / "fetched"
    assert {path.name for path in fetched.iterdir()} >= {
        path.name for path in (second / "models/adapter").iterdir()
    }


def test_the_run_cache_serves_a_second_machine(team_on: Callable[[str], Team]) -> None:
    team = team_on("s3")
    second = team.clone("second")
    edit_params(team.first / "params.yaml", {"answer.max_new_tokens": 6})
    assert repro(team.first) == {"code", "answer-base", "answer-tuned", "answer-shots", "evaluate"}
    run(*MEDTUNE, "push-runs", cwd=team.first)
    edit_params(second / "params.yaml", {"answer.max_new_tokens": 6})
    run("dvc", "pull", "--run-cache", "--allow-missing", cwd=second)
    # The check of everything, a second long, is the one stage that no cache replaces.
    assert repro(second, "--pull") == {"code"}
    for name in ("dvc.lock", "metrics/evaluation.json"):
        assert (second / name).read_bytes() == (team.first / name).read_bytes()


@pytest.mark.parametrize("option", ["version_aware", "worktree"])
def test_a_cloud_versioned_remote_is_refused_in_a_clear_word(tmp_path: Path, option: str) -> None:
    run("git", "init", "--quiet", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    run("dvc", "remote", "add", "--default", "versioned", "s3://bucket/medtune", cwd=tmp_path)
    run("dvc", "remote", "modify", "versioned", option, "true", cwd=tmp_path)
    for command in (("check-remote",), ("check-remote", "--mend"), ("push-runs",)):
        refused = attempt(*MEDTUNE, *command, cwd=tmp_path)
        assert refused.returncode == 1
        assert refused.stderr.startswith(
            "error: remote versioned: cloud-versioned (version_aware or worktree), so its files have no"
        )
        assert refused.stderr.count("\n") == 1


def test_verify_reads_what_a_push_to_a_cloud_versioned_remote_makes_of_dvc_lock(
    team_on: Callable[[str], Team],
) -> None:
    team = team_on("s3")
    assert isinstance(team.storage, Bucket)
    versioning = {"Status": "Enabled"}
    team.storage.client.put_bucket_versioning(Bucket=team.storage.name, VersioningConfiguration=versioning)
    run("dvc", "remote", "modify", "storage", "version_aware", "true", cwd=team.first)
    pushed = read_lock(team.first / "dvc.lock")
    run("dvc", "push", cwd=team.first)
    assert "version_id" in (team.first / "dvc.lock").read_text()
    assert read_lock(team.first / "dvc.lock") == pushed
    run(*MEDTUNE, "verify", cwd=team.first)
    assert repro(team.first) == set()
    run(*MEDTUNE, "verify", cwd=team.first)
