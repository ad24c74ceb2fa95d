"""Forward passes that compute nothing twice and nothing for nothing.

- Tokens that all rows of a batch begin with (the system prompt and the head of the template) run through
  the model once.
- Logits are computed only where they are needed. With a vocabulary of 49,152 the output head is a fifth
  of SmolLM2's work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import takewhile

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Cache

from medtune.core.errors import MedtuneError
from medtune.model.attention import NO_MASK, SharedPrefix

Instead = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""What is computed of the head and of the hidden states that it would map to logits."""


def logits_at(
    model: nn.Module,
    head: nn.Module,
    prefix: Tensor,
    rows: Tensor,
    wanted: Tensor,
    *,
    positions: Tensor | None = None,
    mask: Tensor | None = None,
    instead: Instead | None = None,
) -> Tensor:
    """Logits, of shape (wanted, vocabulary), at the wanted tokens of rows that go on from a prefix.

    `prefix` has the shape (length,), which may be 0; `rows`, `wanted` and `positions` have the shape
    (rows, width), `mask` (rows, 1, width, length + width). Without the last two, rows are plain text:
    padded on the right, so that under the causal mask no real token ever sees padding. `instead` is computed
    in place of the logits (`only_positions`).
    """
    length, (count, width) = len(prefix), rows.shape
    # Nothing to share: transformers' own way, a batch of rows, and its own causal mask.
    if not length and mask is None:
        with only_positions(head, wanted, instead):
            return model(input_ids=rows, use_cache=False).logits.squeeze(0)
    # In one row every token would be further on than in its own text: each row goes on where the prefix ends.
    if positions is None:
        positions = torch.arange(length, length + width, device=rows.device).repeat(count)
    first = torch.arange(length, device=rows.device)
    with only_positions(head, pad(wanted.flatten(), (length, 0)).unsqueeze(0), instead):
        output = model(
            input_ids=torch.cat([prefix, rows.flatten()]).unsqueeze(0),
            position_ids=torch.cat([first, positions.flatten()]).unsqueeze(0),
            # With four dimensions transformers takes it as it is, whatever it covers: here the rows alone.
            attention_mask=NO_MASK if mask is None else mask,
            use_cache=False,
            shared=SharedPrefix(length, count),
        )
    return output.logits.squeeze(0)


def run_prefix(model: nn.Module, head: nn.Module, prefix: Tensor, rows: int) -> Cache:
    """Keys and values of the token ids `prefix`, of shape (length,), as the cache of so many equal rows."""
    # Nobody asks what comes after the prefix; keys and values are all that is wanted.
    nothing = torch.zeros(1, len(prefix), dtype=torch.bool, device=prefix.device)
    with only_positions(head, nothing):
        cache: Cache = model(input_ids=prefix.unsqueeze(0), use_cache=True).past_key_values
    cache.batch_repeat_interleave(rows)
    return cache


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens the prompts share, leaving each at least one of its own; 0 for one prompt."""
    if len(prompts) == 1:
        return 0
    # A row without a token of its own would have nothing to run, and no logits.
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def require_numbers(logits: Tensor) -> None:
    """Refuse what a model says whose weights are damaged, or too large for the dtype it is computed in."""
    if logits.isnan().any():
        raise MedtuneError(
            "the model's logits are not numbers (NaN): its weights are damaged, or too large for "
            "answer.precision"
        )


@contextmanager
def only_positions(head: nn.Module, mask: Tensor, instead: Instead | None = None) -> Iterator[None]:
    """Let the output head see only the hidden states where `mask`, of shape (batch, length), is true.

    Its output then has the shape (1, positions, vocabulary), or is what `instead` makes of the head and of
    those hidden states, of shape (1, positions, hidden). It happens where the model's own forward calls the
    head, so that any wrapper (DDP, FSDP) works, and a head whose weights are there only then.
    """
    own = head.forward

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0][mask].unsqueeze(0),)

    handle = head.register_forward_pre_hook(select)
    if instead is not None:
        head.forward = partial(instead, own)
    try:
        yield
    finally:
        handle.remove()
        if instead is not None:
            head.forward = own
