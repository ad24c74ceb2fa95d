"""Forward passes that compute nothing twice and nothing for nothing.

- Tokens that all rows of a batch begin with (the system prompt and the head of the template) run through
  the model as one row; the rows continue from its keys and values.
- Logits are computed only where they are needed. With a vocabulary of 49,152 the output head is a fifth
  of SmolLM2's work.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn


def run_prefix(model: nn.Module, head: nn.Module, prefix: Tensor, rows: int) -> Any:
    """Keys and values of the token ids `prefix`, of shape (length,), as the cache of so many equal rows."""
    nothing = torch.zeros(1, len(prefix), dtype=torch.bool, device=prefix.device)
    with only_positions(head, nothing):
        cache = model(input_ids=prefix.unsqueeze(0), use_cache=True).past_key_values
    cache.batch_repeat_interleave(rows)
    return cache


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens the prompts share, leaving each at least one of its own; 0 for one prompt."""
    if len(prompts) == 1:
        return 0
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


@contextmanager
def only_positions(head: nn.Module, mask: Tensor) -> Iterator[None]:
    """Let the output head see only the hidden states where `mask`, of shape (batch, length), is true.

    Its output then has the shape (1, positions, vocabulary). A hook leaves the model's own forward in
    charge, so that any architecture and any wrapper (DDP, FSDP) work.
    """

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0][mask].unsqueeze(0),)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
