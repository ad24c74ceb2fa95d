"""How many tokens examples have, how many of them fit, and a context cut until its example does."""

from collections.abc import Sequence

import numpy as np

from medtune.core.examples import Example
from medtune.model.chat import ChatEncoder, EncodedExample

LIMITS = (128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Lengths for which it is told how many examples fit."""
SHARES = {"median": 0.5, "90%": 0.9, "99%": 0.99}


def describe_lengths(lengths: Sequence[int], max_length: int) -> str:
    """Quantiles of the lengths, in tokens, and how many examples fit in which length.

    Lengths that half of them do not fit in are left out, and those beyond the first that all fit in.
    """
    ordered = np.sort(lengths)
    quantiles = [
        f"{name} {np.quantile(ordered, share, method='inverted_cdf')}" for name, share in SHARES.items()
    ]
    fitting = {limit: int((ordered <= limit).sum()) for limit in sorted({max_length, *LIMITS})}
    told = [
        f"{limit}: {count}"
        for number, (limit, count) in enumerate(fitting.items())
        if limit == max_length
        or (2 * count >= len(ordered) and len(ordered) not in list(fitting.values())[:number])
    ]
    return f"tokens: {', '.join(quantiles)}, longest {ordered[-1]}; how many fit in {', '.join(told)}"


def shortened(example: Example, encoder: ChatEncoder, max_length: int) -> EncodedExample | None:
    """An example with as much of its context, from the start, as fits in so many tokens.

    The context ends where a token ends; all else stays whole. None if it does not fit without any context.
    """
    context, encoded = example.context or "", encoder.encode(example)
    ends = encoder.token_ends(context) if context else []
    kept = len(ends)
    while (excess := len(encoded.input_ids) - max_length) > 0:
        if kept == 0:
            return None
        # Beside other text the tokens at the cut may be more than those it took away: then once again.
        kept = max(0, kept - excess)
        rest = context[: ends[kept - 1]].rstrip() if kept else ""
        encoded = encoder.encode(example.model_copy(update={"context": rest or None}))
    return encoded
