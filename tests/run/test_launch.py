"""A stage in several processes, on one machine and on two, against the same stage in one."""

import csv
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from medtune.core.errors import MedtuneError
from medtune.run.launch import Launch
from tests.conftest import ROOT, edit_params
from tests.project import attempt, run
from tests.servers import unused_port
from tests.tools import digests

CONFIGS = sorted(path.stem for path in (ROOT / "configs/accelerate").glob("*.yaml"))
KILL_RANK_1 = """
import os, pathlib, signal
mark = pathlib.Path(os.environ["KILL_ONCE"])
if os.environ.get("RANK") == "1" and not mark.exists():
    import transformers
    step = transformers.Trainer.training_step
    def counted(trainer, *arguments):
        if trainer.state.global_step == 15:
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, *arguments)
    transformers.Trainer.training_step = counted
"""
SHARD_ON_A_CPU = """
import os
if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    import accelerate.state as state
    start = state.PartialState.__init__
    def as_on_gpus(self, *arguments, **options):
        start(self, *arguments, **options)
        if self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.MULTI_GPU
    state.PartialState.__init__ = as_on_gpus
"""
"""accelerate offers FSDP on GPUs only; torch's own, told of none, does the same over gloo."""


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_launch_is_one_that_accelerate_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    launch = Launch.load(name, "finetune.launch")
    config = load_config_from_file(str(launch.path))
    assert (config.num_processes, config.num_machines) == (launch.processes, launch.machines)
    assert (launch.processes == 1) == (name == "single")
    assert ("fsdp" in name) == (config.distributed_type == "FSDP")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "params.yaml: finetune.launch is 'dpp'; did you mean 'ddp'?"),
        ({"num_processes": 0, "num_machines": 1}, "num_processes is 0; accepted: a whole number from 1"),
        ({"num_processes": 2}, "num_machines is None; accepted: a whole number from 1"),
        (
            {"num_processes": 2, "num_machines": 1, "gradient_accumulation_steps": 8},
            "gradient_accumulation_steps is not accepted: for more processes there are ",
        ),
        (
            {"num_processes": 1, "num_machines": 1, "fsdp_config": {}},
            "fsdp_config is not accepted: for one process there are compute_environment, ",
        ),
        ({"num_processes": 3, "num_machines": 2}, "3 processes cannot be shared among 2 machines"),
    ],
)
def test_a_launch_that_cannot_be_says_why(
    changes: dict[str, object], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs/accelerate").mkdir(parents=True)
    Path("configs/accelerate/ddp.yaml").write_text("num_processes: 2")
    if changes:
        Path("configs/accelerate/dpp.yaml").write_text(yaml.safe_dump(changes))
    with pytest.raises(MedtuneError) as error:
        Launch.load("dpp", "finetune.launch")
    assert expected in str(error.value)


@pytest.fixture(scope="module")
def alone(finished_tiny_project: Path) -> Path:
    """A repository where one process has trained and evaluated."""
    return finished_tiny_project


@pytest.fixture(scope="module")
def together(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two processes."""
    folder = tmp_path_factory.mktemp("together") / "medtune"
    shutil.copytree(alone, folder)
    edit_params(folder / "params.yaml", {"finetune.launch": "ddp", "answer.launch": "ddp"})
    run("dvc", "repro", "evaluate", cwd=folder)
    return folder


@pytest.fixture
def again(together: Path, tmp_path: Path) -> Path:
    """A repository in which the run of two processes can be made once more."""
    shutil.copytree(together, tmp_path / "medtune")
    (tmp_path / "medtune/models/adapter/adapter_model.safetensors").unlink()
    return tmp_path / "medtune"


@pytest.fixture
def patch(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Makes every Python process that gets the variables run some lines first."""

    def _patch(lines: str) -> dict[str, str]:
        (tmp_path / "patch").mkdir()
        (tmp_path / "patch/sitecustomize.py").write_text(lines)
        return {"PYTHONPATH": str(tmp_path / "patch"), "KILL_ONCE": str(tmp_path / "killed")}

    return _patch


def losses(folder: Path, examples: str) -> list[float]:
    with (folder / "metrics/curves/loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["examples"] == examples]


def assert_close(folder: Path, other: Path) -> None:
    for examples, steps in (("training", 20), ("validation", 4)):
        values = losses(folder, examples)
        assert len(values) == steps
        assert values == pytest.approx(losses(other, examples), abs=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(alone: Path, together: Path) -> None:
    assert_close(together, alone)
    details = "metrics/training_details.json"
    metrics = [json.loads((folder / details).read_text()) for folder in (alone, together)]
    for key in ("steps", "examples", "tokens_seen", "answer_tokens", "trainable_parameters"):
        assert metrics[0][key] == metrics[1][key], key
    environment = json.loads((together / "metrics/environment.json").read_text())
    assert environment["finetune"]["processes"] == 2


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one(together: Path) -> None:
    def answers() -> object:
        return json.loads((together / "metrics/answers-tuned.json").read_text())["answers"]

    before = answers()
    ask = ("python", "-m", "stages.answer", "tuned")
    run(*ask, cwd=together, env={"MEDTUNE_PROGRESS": str(together / "progress")})
    assert answers() == before
    edit_params(together / "params.yaml", {"answer.launch": "single"})
    run(*ask, cwd=together)
    edit_params(together / "params.yaml", {"answer.launch": "ddp"})
    assert answers() == before


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one_with_shots(together: Path) -> None:
    params, given = together / "params.yaml", []
    for launch in ("ddp", "single"):
        edit_params(params, {"answer.launch": launch, "answer.shots": 2})
        run("python", "-m", "stages.answer", "shots", cwd=together)
        given.append(json.loads((together / "metrics/answers-shots.json").read_text())["answers"])
    edit_params(params, {"answer.launch": "ddp", "answer.shots": 0})
    assert given[0] == given[1] != []


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_next_run_has_the_same_bytes(
    together: Path, again: Path, patch: Callable[[str], dict[str, str]]
) -> None:
    changes = patch(KILL_RANK_1)
    killed = attempt("python", "-m", "stages.finetune", cwd=again, env=changes)
    assert killed.returncode == 1
    assert "error: a process was killed (SIGKILL); run `dvc repro` again" in killed.stderr
    assert "Traceback" not in killed.stderr
    resumed = attempt("python", "-m", "stages.finetune", cwd=again, env=changes)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step 12" in resumed.stdout + resumed.stderr
    assert digests(again / "models") == digests(together / "models")


@pytest.mark.slow
def test_bad_input_is_said_once(again: Path) -> None:
    edit_params(again / "params.yaml", {"finetune.max_length": 8})
    result = attempt("python", "-m", "stages.finetune", cwd=again)
    assert result.returncode == 1
    assert result.stderr.count("error: ") == 1, result.stderr
    assert "Traceback" not in result.stderr


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(MedtuneError, match=r"batch_size is 15, which the 2 processes of .* cannot share"):
        Launch.load("ddp", "finetune.launch").require_divides(15, "finetune.batch_size")


@pytest.mark.slow
def test_sharded_processes_have_the_losses_of_one_and_go_on_after_a_kill(
    alone: Path, again: Path, patch: Callable[[str], dict[str, str]]
) -> None:
    edit_params(again / "params.yaml", {"finetune.launch": "fsdp"})
    refused = attempt("python", "-m", "stages.finetune", cwd=again)
    assert "finetune.launch is 'fsdp', which shards a model on GPUs only" in refused.stderr
    changes = patch(SHARD_ON_A_CPU + KILL_RANK_1)
    assert attempt("python", "-m", "stages.finetune", cwd=again, env=changes).returncode == 1
    resumed = attempt("python", "-m", "stages.finetune", cwd=again, env=changes)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step" in resumed.stdout + resumed.stderr
    assert_close(again, alone)
    files = {path.name for path in (again / "models/adapter").iterdir()}
    assert files == {path.name for path in (alone / "models/adapter").iterdir()}


@pytest.fixture(params=["namespaces", "loopback"])
def two_machines(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Variables that spread a stage over two machines: network namespaces joined by a pair of veths, or two
    shells that meet on loopback."""
    names = [f"medtune-{uuid.uuid4().hex[:6]}" for _ in range(2)]
    prefixes, host = ["", ""], "127.0.0.1"
    if request.param == "namespaces":
        if attempt("sh", "-c", f"ip netns add {names[0]}", cwd=tmp_path).returncode:
            pytest.skip("the kernel lets us make no network namespaces")
        commands = [f"netns add {names[1]}", f"link add {names[0]} type veth peer name {names[1]}"]
        for number, name in enumerate(names):
            commands += [f"link set {name} netns {name}", f"-n {name} link set {name} up"]
            commands += [
                f"-n {name} addr add 10.77.0.{number + 1}/24 dev {name}",
                f"-n {name} link set lo up",
            ]
        for command in commands:
            run("ip", *command.split(), cwd=tmp_path)
        prefixes, host = (
            [f"ip netns exec {name} env GLOO_SOCKET_IFNAME={name}" for name in names],
            "10.77.0.1",
        )
    script = tmp_path / "on-each-machine"
    script.write_text(
        f'#!/bin/sh\n{prefixes[1]} env MEDTUNE_MACHINE_RANK=1 "$@" &\n'
        f'{prefixes[0]} env MEDTUNE_MACHINE_RANK=0 "$@" && wait $!\n'
    )
    script.chmod(0o755)
    yield {"MEDTUNE_ON_EACH_MACHINE": str(script), "MEDTUNE_MAIN_ADDRESS": f"{host}:{unused_port()}"}
    for name in names if request.param == "namespaces" else []:
        run("ip", "netns", "delete", name, cwd=tmp_path)


@pytest.mark.slow
def test_two_machines_give_the_bytes_of_two_processes_on_one(
    together: Path, again: Path, two_machines: dict[str, str]
) -> None:
    config = again / "configs/accelerate/ddp.yaml"
    config.write_text(config.read_text().replace("num_machines: 1", "num_machines: 2"))
    nowhere = attempt("python", "-m", "stages.finetune", cwd=again)
    assert "asks for 2 machines, but MEDTUNE_ON_EACH_MACHINE is not set" in nowhere.stderr
    run("dvc", "repro", "finetune", cwd=again, env=two_machines)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        path = f"models/adapter/{name}"
        assert (again / path).read_bytes() == (together / path).read_bytes(), name
