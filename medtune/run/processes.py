"""The processes of one stage, started by `medtune.run.launch`: who is who, and what they tell each other.

A stage that runs alone is the main process of one, and nothing here does anything.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for another: a share of the answers may take much longer than the next one."""


def count() -> int:
    """How many processes there are, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The number of this process on its machine, from 0: which GPU it has."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes: the others only compute."""
    return rank() == 0


def shard_the_model() -> bool:
    """Whether the processes hold a part of the model each (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"


def connect(device: torch.device) -> None:
    """Meet the other processes: over NCCL on CUDA, over gloo on the CPU."""
    if count() > 1:
        PartialState(cpu=device.type == "cpu", timeout=PATIENCE)


def wait() -> None:
    """Go on when every process is here."""
    if count() > 1:
        dist.barrier()


def tell(value: T | None) -> T:
    """What the main process passes, in all of them."""
    values = [value]
    if count() > 1:
        dist.broadcast_object_list(values, src=0)
    assert values[0] is not None
    return values[0]


def gather(value: T) -> list[T]:
    """What each process passes, in the order of their numbers, in all of them."""
    values: list[Any] = [value]
    if count() > 1:
        values = [None] * count()
        dist.all_gather_object(values, value)
    return values


@contextmanager
def entered_by_main(context: AbstractContextManager[T]) -> Iterator[T]:
    """Enter a context in the main process alone; all get its value, and it is left after the last one."""
    if not is_main():
        yield tell(None)
        wait()
        return
    with context as value:
        yield tell(value)
        wait()


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Give all processes the mean of their gradients, as if one process had seen every example.

    One message for all parameters, so that no process needs to run as many passes as another. A parameter
    that took part in no pass here counts with zeros.
    """
    if count() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= count()
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()
