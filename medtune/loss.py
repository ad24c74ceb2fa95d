"""The training loss: cross-entropy over the answers, at the cost of little more than the answers.

Loss and gradients are those of the plain pass (tests/test_loss.py).
"""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from medtune.batching import IGNORED, shared_prefix_length
from medtune.forward import only_positions, run_prefix


def summed_loss(
    model: nn.Module, head: nn.Module, input_ids: Tensor, labels: Tensor, *, share_prefix: bool = True
) -> tuple[Tensor, int]:
    """Summed cross-entropy over the labels that are not `IGNORED`, and the number of them.

    `input_ids` and `labels` have the shape (batch, length) and are padded on the right, so that under
    the causal mask no real token ever sees padding: an attention mask would change nothing and is left
    out. `head` is the output layer inside `model`. What the rows begin with runs once, with gradients;
    without `share_prefix` the model runs once a call, on whole rows.
    """
    shared = shared_prefix_length(input_ids, labels) if share_prefix else 0
    cache = run_prefix(model, head, input_ids[0, :shared], len(input_ids)) if shared else None
    targets = labels[:, shared + 1 :]
    labelled = targets != IGNORED
    with only_positions(head, pad(labelled, (0, 1))):
        output = model(input_ids=input_ids[:, shared:], past_key_values=cache, use_cache=shared > 0)
    total = cross_entropy(output.logits.squeeze(0).float(), targets[labelled], reduction="sum")
    return total, int(labelled.sum())
