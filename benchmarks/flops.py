"""How many operations of floating point a training step or an answer needs.

Counted is what has to be computed: tokens that are real, a beginning that the rows of a pass share once, of
the attention scores those that the causal mask lets a token see, of the output head the positions with a
label. Padding, scores that are hidden, norms and the softmax are not counted, nor is anything computed
twice. So the share of a machine's peak says what of it does useful work, and cannot exceed 100%. A
multiplication and its addition are two operations.

The backward pass of a frozen layer has one product, for the gradient of its input; that of an adapter's two
matrices and of the attention has two each. Before the first layer nothing is trained: its projections of
queries, keys and values need no gradient of their input. Where only some linear layers have an adapter,
gradients that lead to none of them are counted as if they were needed.
"""

from dataclasses import dataclass

from torch import Tensor

from medtune.model.params import LoraParams, is_named
from medtune.model.shape import Shape
from medtune.train.encoding import IGNORED

INTO_THE_FIRST = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class Work:
    """What a pass has to compute: tokens, positions with a label, pairs of a token and one that it sees.

    `padding` are further tokens that it computes for nothing.
    """

    tokens: int
    labels: int
    pairs: int
    padding: int = 0

    @classmethod
    def of(cls, attention_mask: Tensor, labels: Tensor, shared: int) -> "Work":
        """Of a batch padded on the right, of shape (rows, width), whose rows share their first tokens."""
        rows, width = attention_mask.shape
        own = (attention_mask.sum(dim=1) - shared).tolist()
        return cls(
            tokens=shared + sum(own),
            labels=int((labels[:, 1:] != IGNORED).sum()),
            pairs=_seen(shared, 0) + sum(_seen(length, shared) for length in own),
            padding=rows * (width - shared) - sum(own),
        )

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens,
            self.labels + other.labels,
            self.pairs + other.pairs,
            self.padding + other.padding,
        )


def training_flops(shape: Shape, lora: LoraParams, work: Work) -> int:
    """Operations of a forward and a backward pass of a LoRA without dropout, DoRA and checkpointing."""
    first = min(lora.layers or [0])
    linears = sum(
        _linear_flops(name, sizes, layer, first, lora)
        for layer in range(shape.layers)
        for name, sizes in shape.linears.items()
    )
    head = 2 * 2 * shape.hidden * shape.vocabulary
    # Scores and weighted values forward, and the gradients of both factors of each.
    products = first + 3 * (shape.layers - first)
    attention = 2 * 2 * products * shape.heads * shape.head_dim
    return work.tokens * linears + work.labels * head + work.pairs * attention


def forward_flops(shape: Shape, tokens: int, logits: int) -> int:
    """Operations of linear layers and head in a forward pass without an adapter, or with a merged one."""
    return 2 * (tokens * shape.linear_parameters + logits * shape.hidden * shape.vocabulary)


def _linear_flops(name: str, sizes: tuple[int, int], layer: int, first: int, lora: LoraParams) -> int:
    """Of a linear layer for one token, forward and backward; `first` is the first layer that is trained."""
    inputs, outputs = sizes
    needs_gradient = layer > first or (layer == first and name not in INTO_THE_FIRST)
    frozen = 2 * inputs * outputs * (2 if needs_gradient else 1)
    named = lora.target_modules == "all-linear" or any(is_named(name, one) for one in lora.target_modules)
    if not named or (lora.layers is not None and layer not in lora.layers):
        return frozen
    down, up = 2 * inputs * lora.r, 2 * lora.r * outputs
    return frozen + down * (3 if needs_gradient else 2) + up * 3


def _seen(own: int, before: int) -> int:
    """Pairs of so many tokens, each of which sees itself, those before it, and all of a beginning."""
    return own * before + own * (own + 1) // 2
