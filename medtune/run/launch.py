"""Starting a stage in several processes, as a file of `configs/accelerate/` says.

    finetune.launch: ddp      ->  configs/accelerate/ddp.yaml  ->  accelerate launch -m stages.finetune

The stage starts itself: what DVC runs is the same command for one process and for a hundred, and a commit
holds the number of processes as it holds any other thing that decides the result. What differs from one
machine to the next (addresses, ranks) comes from the environment:

    MEDTUNE_ON_EACH_MACHINE   a command that runs its arguments once on each machine: srun --ntasks-per-node=1
    MEDTUNE_MACHINE_RANK      the number of a machine, from 0 (default: SLURM_NODEID), set by that command
    MEDTUNE_MAIN_ADDRESS      host:port of machine 0 (default: the host where DVC runs, port 29500)
"""

import ctypes
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.core.errors import MedtuneError, nearest, run
from medtune.core.yaml_file import read_yaml
from medtune.run.stage import LAUNCH_FILES, Run, Stage, only_here, run_whole

STARTED_WITH = "MEDTUNE_STARTED_WITH"
"""The environment variable in which a stage tells its processes what it has read: they must read the same."""
PORT = 29500
FOR_ONE_PROCESS = ("compute_environment", "distributed_type", "num_machines", "num_processes")
"""What a launch file may hold in any case."""
FOR_SEVERAL = ("fsdp_config", "gpu_ids", "debug", "enable_cpu_affinity", "rdzv_backend", "same_network")
"""What else it may hold for more processes. Of all that accelerate reads, the rest would speak against
params.yaml, as `mixed_precision` or `fp16` against `finetune.precision`.
"""
PATIENCE = 5.0
"""Seconds for which a failing process lets the main process speak first."""

_OTHER_LAUNCH = re.compile(
    "(ACCELERATE|FSDP|PARALLELISM_CONFIG|TORCHELASTIC)_.*"
    "|((LOCAL|NODE|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)"
    "|NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|USE_HUB_KERNELS|XLA_(USE|DOWNCAST)_BF16"
)
"""Environment variables that would let something else than params.yaml and the launch file decide."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Launch:
    """How many processes a file of `configs/accelerate/` asks for, on how many machines.

    `settings` is all that may decide the result.
    """

    path: Path
    processes: int
    machines: int
    settings: dict[str, Any]

    @classmethod
    def load(cls, name: str, key: str) -> "Launch":
        """Read the file that the parameter `key` names."""
        path = LAUNCH_FILES / f"{name}.yaml"
        if not path.is_file():
            names = sorted(known.stem for known in LAUNCH_FILES.glob("*.yaml"))
            raise MedtuneError(f"params.yaml: {key} is '{name}'; {nearest(name, names)}")
        content = read_yaml(path)
        for field in ("num_processes", "num_machines"):
            value = content.get(field)
            if not isinstance(value, int) or value < 1:
                raise MedtuneError(f"{path}: {field} is {value!r}; accepted: a whole number from 1")
        processes, machines = content["num_processes"], content["num_machines"]
        accepted = FOR_ONE_PROCESS + (FOR_SEVERAL if processes > 1 else ())
        if others := sorted(map(str, content.keys() - accepted)):
            number = "more processes" if processes > 1 else "one process"
            raise MedtuneError(
                f"{path}: {others[0]} is not accepted: for {number} there are {', '.join(accepted)}; "
                "params.yaml decides the rest"
            )
        if processes % machines:
            raise MedtuneError(f"{path}: {processes} processes cannot be shared among {machines} machines")
        settings = {key: value for key, value in content.items() if key != "num_machines"}
        return cls(path, processes, machines, settings)

    @property
    def shares_weights(self) -> bool:
        """Whether each process holds a part of the weights (FSDP)."""
        return self.settings.get("distributed_type") == "FSDP"

    def require_gpus(self, device: str) -> None:
        """Refuse to share out weights on a kind of device (cpu, cuda) where accelerate does not."""
        if self.shares_weights and device == "cpu":
            raise gpus_only(self.path.stem)

    def require_divides(self, batch_size: int, key: str) -> None:
        """Refuse a batch that the processes cannot share evenly."""
        if batch_size % self.processes:
            raise MedtuneError(
                f"params.yaml: {key} is {batch_size}, which the {self.processes} processes of {self.path} "
                f"cannot share evenly; accepted: a multiple of {self.processes}"
            )


def gpus_only(name: str) -> MedtuneError:
    """The error of a launch that shares out weights where accelerate does not."""
    return MedtuneError(
        f"params.yaml: finetune.launch is '{name}', which shards a model on GPUs only; "
        "accepted on a CPU: single, ddp"
    )


def run_launched(
    stage: Stage, main: Callable[[Run], None], alone: Callable[[Run], bool] = lambda _: False
) -> None:
    """Call a stage's entry point, or start the processes that do, if its launch file asks for more than one.

    A run that is `alone` is one process in any case. Bad input becomes one line and exit code 1.
    """

    def start() -> None:
        is_launched = STARTED_WITH in os.environ and "LOCAL_RANK" in os.environ
        if not is_launched:
            forget_other_launches()
        begun = Run.begin(stage)
        if is_launched:
            _join(begun, main)
        elif (launch := chosen_launch(begun)).processes > 1 and not alone(begun):
            os.environ[STARTED_WITH] = begun.started_with
            _start(launch, [f"stages.{stage.module}", *sys.argv[1:]])
        else:
            with only_here(stage.name):
                run_whole(begun, main)

    run(start)


def forget_other_launches() -> None:
    """Take out of the environment what a shell or a launcher around this process has left there.

    ACCELERATE_MIXED_PRECISION=bf16 would train in another precision than `finetune.precision`, in silence.
    """
    for name in [name for name in os.environ if _OTHER_LAUNCH.fullmatch(name)]:
        del os.environ[name]


def chosen_launch(begun: Run) -> Launch:
    """The launch file that the parameters of a stage name."""
    section = begun.stage.launch
    assert section is not None, "the stage is one process"
    launch = Launch.load(begun.content[section]["launch"], f"{section}.launch")
    if section == "finetune":
        launch.require_divides(begun.content[section]["batch_size"], f"{section}.batch_size")
    return launch


def _join(begun: Run, main: Callable[[Run], None]) -> None:
    """Call a stage's entry point in one of the processes of its launch."""
    _end_with_parent()
    with _one_voice():
        if os.environ.get(STARTED_WITH) != begun.started_with:
            raise MedtuneError(f"{begun.stage.name}: what it reads changed while its processes started")
        if os.environ["RANK"] != "0":
            main(begun)
            return
        with only_here(begun.stage.name):
            run_whole(begun, main)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Let one process speak for all: the one that knows what is wrong, if possible the main one.

    The launcher ends all as soon as one has ended, so whoever has less to say waits for that.
    """
    is_main = os.environ["RANK"] == "0"
    with ExitStack() as stack:
        if not is_main:
            stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        try:
            yield
        except MedtuneError:
            if not is_main:
                time.sleep(PATIENCE)
            raise
        except RuntimeError as error:
            # What gloo and NCCL raise when another process has left.
            if "gloo" not in str(error) and not type(error).__name__.startswith("Dist"):
                raise
            time.sleep(2 * PATIENCE)
            raise MedtuneError("another process of the stage has ended; what it said stands above") from None


def _start(launch: Launch, command: list[str]) -> None:
    if launch.machines == 1:
        _start_here(launch, command)
        return
    on_each = os.environ.get("MEDTUNE_ON_EACH_MACHINE")
    if not on_each:
        raise MedtuneError(
            f"{launch.path}: asks for {launch.machines} machines, but MEDTUNE_ON_EACH_MACHINE is not set: a "
            "command that runs its arguments once on each machine, such as: srun --ntasks-per-node=1"
        )
    environment = {"MEDTUNE_MAIN_ADDRESS": f"{socket.gethostname()}:{PORT}"} | os.environ
    started = [*shlex.split(on_each), sys.executable, "-m", "medtune.run.launch", launch.path.stem, *command]
    try:
        code = subprocess.run(started, env=environment).returncode
    except OSError as error:
        raise MedtuneError(f"MEDTUNE_ON_EACH_MACHINE is '{on_each}': {error}") from None
    if code:
        raise MedtuneError(f"a machine failed (exit code {code}); what it said stands above")


def _start_here(launch: Launch, command: list[str]) -> None:
    """Run `accelerate launch` for the processes of this machine, in this process."""
    # Imported here: torch takes seconds to load, and a mistake in a parameter should not wait for it.
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--config_file", str(launch.path)]
    if launch.machines > 1:
        rank = os.environ.get("MEDTUNE_MACHINE_RANK", os.environ.get("SLURM_NODEID"))
        if rank is None:
            raise MedtuneError("MEDTUNE_MACHINE_RANK is not set: the number of this machine, from 0")
        address = os.environ.get("MEDTUNE_MAIN_ADDRESS", "")
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise MedtuneError(f"MEDTUNE_MAIN_ADDRESS is '{address}' on this machine; accepted: host:port")
        options += ["--machine_rank", rank, "--main_process_ip", host, "--main_process_port", port]
        options += ["--same_network"]
    else:
        # Any free port: two experiments may run side by side.
        options += ["--main_process_port", "0"]
    # A process that fails says why itself; the launcher's own report only repeats that it failed.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    arguments = launch_command_parser().parse_args([*options, "-m", *command])
    try:
        launch_command(arguments)
    except ChildFailedError as failure:
        _explain(failure.get_first_failure()[1].exitcode)
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)


def _explain(code: int) -> None:
    """Say why a process ended, unless it has done so itself; the others were then ended by the launcher."""
    if code < 0:
        name = signal.Signals(-code).name
        raise MedtuneError(f"a process was killed ({name}); run `dvc repro` again: it goes on where it was")
    sys.exit(1)


def _end_with_parent() -> None:
    """Let the kernel end this process with the launcher: torch gives it a session of its own, so that
    killing the group of `dvc` would miss it. Linux only; elsewhere the lock of the stage holds."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """On each machine: `python -m medtune.run.launch LAUNCH MODULE ARGUMENTS...`."""
    name, *command = sys.argv[1:]
    forget_other_launches()
    run(lambda: _start_here(Launch.load(name, "launch"), command))


if __name__ == "__main__":
    main()
