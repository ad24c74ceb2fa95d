"""Attention as transformers' layers call it, over batches whose rows begin alike.

Such a batch runs through the model as one row: the prefix, then what each row goes on with. Every linear
layer then reads its weights once for all tokens; only here are the rows told apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.masking_utils import sdpa_mask

from medtune.core.errors import MedtuneError

UNKNOWN = ("position_bias", "s_aux", "softcap")
"""What attention of other models than Llama may ask for; to go without would be wrong in silence."""


FLASH_SINCE, FLASH_HEAD = (8, 0), 256
"""CUDA's compute capability since which there is flash attention; the widest head that it takes."""
LONG = 704
"""Tokens of a row up to which plain products are faster on a processor (make bench-attention)."""
NO_MASK = torch.empty(1, 1, 0, 0)
"""Given as a mask, of which transformers lets one of four dimensions through: rows are causal, no more."""


@dataclass(frozen=True)
class SharedPrefix:
    """What lies in a batch that is one row: `length` tokens, then `rows` continuations of one width."""

    length: int
    rows: int


def implementation(name: str) -> str:
    """The name under which transformers knows `compute.attention` with shared prefixes."""
    return f"medtune_{name}"


def shares_prefix(choice: str, config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether training computes once what rows begin with: `finetune.share_prefix`, auto by what CUDA has.

    Flash attention takes a prefix without a mask; elsewhere the plain kernel would hold all scores.
    """
    if choice != "auto":
        return choice == "always"
    if device.type != "cuda" or config._attn_implementation == implementation("eager"):
        return True
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    is_new = torch.cuda.get_device_capability(device) >= FLASH_SINCE
    return is_new and dtype in (torch.bfloat16, torch.float16) and head <= FLASH_HEAD


def causal_mask(width: int, past: int, like: Tensor) -> Tensor:
    """What to add to scores of `width` tokens that follow `past`, of shape (1, 1, width, past + width)."""
    seen = torch.ones(1, 1, width, past + width, dtype=torch.bool, device=like.device).tril(past)
    return additive(seen, like.dtype)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to scores: nothing where `seen` is true, else as much as hides a token."""
    # Not minus infinity: the softmax of a row in which every token is hidden, as of padding, would be NaN.
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def _eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Plain products of matrices; heads that share keys and values are rows of one product.

    transformers' own repeats keys and values for every head. The query has the shape (batch, heads, tokens,
    head size), the output (batch, tokens, heads, head size). Without a mask it is causal.
    """
    tokens = query.shape[2]
    if mask is None:
        # More keys than queries: what a cache holds comes first, and all of it is seen.
        mask = causal_mask(tokens, key.shape[2] - tokens, query)
    elif mask.dtype == torch.bool:
        mask = additive(mask, query.dtype)
    # (batch, key heads, query heads of each x tokens, head size): a group of heads lies together.
    grouped = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    # Apart again for the mask, which is one for all heads, and together for the second product.
    scores = (grouped @ key.transpose(2, 3)).unflatten(2, (-1, tokens)) * scaling + mask.unsqueeze(2)
    # In bfloat16 a sum over hundreds of tokens would keep two digits; transformers casts here too.
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype).flatten(2, 3)
    weights = nn.functional.dropout(weights, dropout, module.training)
    return (weights @ value).unflatten(2, (-1, tokens)).flatten(1, 2).transpose(1, 2), None


def _sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """PyTorch's fused attention, of the shapes of `_eager`. Without a mask it is causal.

    transformers' own would need a mask, as large as the scores, for queries that follow a prefix: with one,
    CUDA has no flash attention. PyTorch's bias says the same in two numbers.
    """
    repeats, (tokens, seen) = query.shape[1] // key.shape[1], (query.shape[2], key.shape[2])
    if repeats > 1:
        key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    is_causal = mask is None and 1 < tokens == seen
    output = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=causal_lower_right(tokens, seen) if mask is None and 1 < tokens < seen else mask,
        dropout_p=dropout if module.training else 0.0,
        is_causal=is_causal,
        scale=scaling,
    )
    return output.transpose(1, 2).contiguous(), None


def _auto(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Whichever is faster: on a processor plain products up to `LONG` tokens."""
    chosen = _eager if query.device.type == "cpu" and key.shape[2] <= LONG else _sdpa
    return chosen(module, query, key, value, mask, **options)


def _attend(
    inner: Callable[..., tuple[Tensor, Any]],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    shared: SharedPrefix | None = None,
    **options: Any,
) -> tuple[Tensor, Any]:
    """Attention of a batch as it is or, if there is a prefix, of the prefix and of the rows after it.

    With a prefix the mask is that of the rows, of shape (rows, 1, width, length + width), or `NO_MASK`.
    """
    if unknown := [name for name in UNKNOWN if options.get(name) is not None]:
        raise MedtuneError(f"model.source: its attention needs {unknown[0]}; see docs/models.md")
    # Within the window all is seen, as without one; and no text is longer (`context_length`).
    window = options.get("sliding_window")
    longest = key.shape[2]
    if shared is not None:
        longest = shared.length + (longest - shared.length) // shared.rows
    if window is not None and longest > window:
        raise MedtuneError(f"a text of {longest} tokens is longer than the attention's window of {window}")
    attend = partial(inner, module, **options)
    # `shared` is a keyword that Llama hands on, untouched, from the model's call to each layer's attention.
    if shared is None:
        return attend(query, key, value, attention_mask)
    length = shared.length

    def rows(states: Tensor) -> Tensor:
        """From (1, heads, length + rows x width, head size) to (rows, heads, width, head size)."""
        return states[0, :, length:].unflatten(1, (shared.rows, -1)).transpose(0, 1)

    def with_prefix(states: Tensor) -> Tensor:
        # The gradient of `expand` is the sum over the rows: as if the prefix had run in each of them.
        prefix = states[:, :, :length].expand(shared.rows, -1, -1, -1)
        return torch.cat([prefix, rows(states)], dim=2)

    # No row sees another: each attends to the prefix and to itself, as a batch of its own.
    mask = attention_mask if attention_mask.numel() else None
    output, _ = attend(rows(query), with_prefix(key), with_prefix(value), mask)
    output = output.flatten(0, 1).unsqueeze(0)
    if length:
        first, _ = attend(query[:, :, :length], key[:, :, :length], value[:, :, :length], None)
        output = torch.cat([first, output], dim=1)
    return output, None


# Names of our own: transformers' eager and sdpa stay what they are for whatever else runs in this process.
_INNER: dict[str, Callable[..., tuple[Tensor, Any]]] = {"eager": _eager, "sdpa": _sdpa, "auto": _auto}
for _name, _inner in _INNER.items():
    AttentionInterface.register(implementation(_name), partial(_attend, _inner))
    # Under an unknown name transformers would make no mask at all, and padding would be attended to. This
    # makes one of truth values, and none where rows are causal and whole.
    AttentionMaskInterface.register(implementation(_name), sdpa_mask)
