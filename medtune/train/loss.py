"""The training loss: cross-entropy over the answers, at the cost of little more than the answers.

Loss and gradients are those of the plain pass (tests/train/test_loss.py).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from medtune.model.forward import logits_at
from medtune.train.batching import shared_prefix_length
from medtune.train.encoding import IGNORED

AT_ONCE = 32
"""Positions whose probabilities are computed together: few enough to stay in a processor's cache."""


def summed_loss(
    model: nn.Module, head: nn.Module, input_ids: Tensor, labels: Tensor, *, share_prefix: bool = True
) -> tuple[Tensor, int]:
    """Summed cross-entropy over the labels that are not `IGNORED`, and the number of them.

    `input_ids` and `labels` have the shape (batch, length) and are padded on the right. `head` is the output
    layer inside `model`. What the rows begin with runs once, with gradients, if `share_prefix` lets it.
    """
    shared = shared_prefix_length(input_ids, labels) if share_prefix else 0
    targets = labels[:, shared + 1 :]
    labelled = targets != IGNORED
    wanted = pad(labelled, (0, 1))
    logits = logits_at(model, head, input_ids[0, :shared], input_ids[:, shared:], wanted)
    parts = zip(logits.split(AT_ONCE), targets[labelled].split(AT_ONCE), strict=True)
    losses = [cross_entropy(part.float(), expected, reduction="sum") for part, expected in parts]
    return torch.stack(losses).sum(), int(labelled.sum())
