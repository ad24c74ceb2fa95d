"""The training loss: cross-entropy over the answers, at the cost of little more than the answers.

Two things that a plain forward pass repeats are computed once:

- Logits are computed only where a label is. With a vocabulary of 49,152 the output head is a fifth of
  SmolLM2's work, and most positions belong to the prompt.
- The tokens that all rows of a batch begin with (the system prompt and the head of the template) run
  through the model as one row, with gradients; the rows continue from its keys and values.

Loss and gradients are those of the plain pass (tests/test_loss.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from medtune.batching import IGNORED, shared_prefix_length


def summed_loss(
    model: nn.Module, head: nn.Module, input_ids: Tensor, labels: Tensor, *, share_prefix: bool = True
) -> tuple[Tensor, int]:
    """Summed cross-entropy over the labels that are not `IGNORED`, and the number of them.

    `input_ids` and `labels` have the shape (batch, length) and are padded on the right, so that under
    the causal mask no real token ever sees padding: an attention mask would change nothing and is left
    out. `head` is the output layer inside `model`. Without `share_prefix` the model runs once a call, on
    whole rows.
    """
    shared = shared_prefix_length(input_ids, labels) if share_prefix else 0
    cache = None
    if shared:
        nothing = torch.zeros(1, shared, dtype=torch.bool, device=input_ids.device)
        with only_positions(head, nothing):
            cache = model(input_ids=input_ids[:1, :shared], use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(input_ids))
    targets = labels[:, shared + 1 :]
    labelled = targets != IGNORED
    with only_positions(head, pad(labelled, (0, 1))):
        output = model(input_ids=input_ids[:, shared:], past_key_values=cache, use_cache=shared > 0)
    total = cross_entropy(output.logits.squeeze(0).float(), targets[labelled], reduction="sum")
    return total, int(labelled.sum())


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
