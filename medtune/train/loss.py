"""The training loss: cross-entropy over the answers, at the cost of little more than the answers.

Loss and gradients are those of the plain pass (tests/train/test_loss.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from medtune.model.forward import logits_at
from medtune.model.params import LOGITS_AT_ONCE
from medtune.train.batching import shared_prefix_length
from medtune.train.encoding import IGNORED

IN_CACHE = 32
"""Positions whose probabilities a processor computes together: few enough to stay in its cache."""


def summed_loss(
    model: nn.Module, head: nn.Module, input_ids: Tensor, labels: Tensor, *, share_prefix: bool = True
) -> tuple[Tensor, int]:
    """Summed cross-entropy over the labels that are not `IGNORED`, and the number of them.

    `input_ids` and `labels` have the shape (batch, length) and are padded on the right. `head` is the output
    layer inside `model`. What the rows begin with runs once, with gradients, if `share_prefix` lets it.
    """
    shared = shared_prefix_length(input_ids, labels) if share_prefix else 0
    following = labels[:, shared + 1 :]
    labelled = following != IGNORED
    targets = following[labelled]
    run = partial(logits_at, model, head, input_ids[0, :shared], input_ids[:, shared:], pad(labelled, (0, 1)))
    if len(targets) <= LOGITS_AT_ONCE:
        return _cross_entropy(run(), targets), len(targets)
    return run(instead=partial(_in_parts, targets)), len(targets)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed, in float32; logits of shape (positions, vocabulary)."""
    at_once = IN_CACHE if logits.device.type == "cpu" else LOGITS_AT_ONCE
    parts = zip(logits.split(at_once), targets.split(at_once), strict=True)
    return torch.stack([cross_entropy(part.float(), said, reduction="sum") for part, said in parts]).sum()


def _in_parts(targets: Tensor, head: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """The same of hidden states, of shape (1, positions, hidden): never are all their logits there."""
    if torch.is_grad_enabled():
        return _InParts.apply(hidden.squeeze(0), head, targets)
    parts = zip(hidden.squeeze(0).split(LOGITS_AT_ONCE), targets.split(LOGITS_AT_ONCE), strict=True)
    return torch.stack([_cross_entropy(head(part), said) for part, said in parts]).sum()


class _InParts(torch.autograd.Function):
    """Each part's gradient is computed with its loss, while its logits are there; the head has none."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        losses, gradients = [], []
        for part, said in zip(hidden.split(LOGITS_AT_ONCE), targets.split(LOGITS_AT_ONCE), strict=True):
            with torch.enable_grad():
                states = part.detach().requires_grad_()
                loss = _cross_entropy(head(states), said)
            gradients += torch.autograd.grad(loss, states)
            losses.append(loss.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (of_hidden,) = ctx.saved_tensors
        return of_hidden * gradient, None, None
