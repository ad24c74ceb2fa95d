"""How likely a model thinks each choice of a multiple-choice question.

The plain way runs the prompt once for every choice. Here a question is one row: its prompt, then its choices
one after another, each of which sees the prompt and itself but no other choice. What the prompts of a batch
begin with runs once for all of them.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from medtune.model.attention import additive
from medtune.model.forward import logits_at, require_numbers, shared_length

PROMPT, PADDING = 0, -1
"""Owners of a position; any other belongs to the choice of that number, from 1."""
TOKENS = 1024
"""Tokens of a pass (padded, the shared ones not counted): more fill memory and make nothing faster."""


class Odds(NamedTuple):
    """Of each choice of a question the log-likelihood of its text, and of the end token there, in nats."""

    texts: list[float]
    ends: list[float]


class _Row(NamedTuple):
    """A question with its choices, each of shape (length,)."""

    ids: Tensor
    positions: Tensor
    owners: Tensor


def choice_log_likelihoods(
    model: PreTrainedModel, prompts: Sequence[list[int]], choices: Sequence[Sequence[list[int]]]
) -> list[Odds]:
    """For each question the natural logarithms of the probabilities of its choices.

    `choices` holds the token ids of each choice with its end token, whose probability is kept apart: it tells
    a choice from one that goes on from it, and a model that seldom ends an answer there has little of it. The
    figures are those of a pass for each choice, but for rounding
    (tests/answer/test_choices.py).
    """
    shared = shared_length(prompts)
    prefix = torch.tensor(prompts[0][:shared], dtype=torch.long, device=model.device)
    rows = [_row(prompt[shared:], shared, answers) for prompt, answers in zip(prompts, choices, strict=True)]
    figures: list[Odds] = []
    with torch.inference_mode():
        for part in _passes(rows):
            answers = choices[len(figures) : len(figures) + len(part)]
            figures += _score(model, prefix, part, answers)
    return figures


def _passes(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows in passes of at most `TOKENS` tokens, or of a single row."""
    part: list[_Row] = []
    for row in rows:
        width = max(len(other.ids) for other in [*part, row])
        if part and (len(part) + 1) * width > TOKENS:
            yield part
            part = []
        part.append(row)
    yield part


def _score(
    model: PreTrainedModel, prefix: Tensor, rows: Sequence[_Row], choices: Sequence[Sequence[list[int]]]
) -> list[Odds]:
    """Log-likelihoods of the choices of questions that all go on from `prefix`."""
    ids, positions, owners = (
        pad_sequence(list(column), batch_first=True, padding_value=filler).to(model.device)
        for column, filler in zip(zip(*rows, strict=True), (0, 0, PADDING), strict=True)
    )
    # A token is predicted at the one before it: the first of every choice at the prompt's last.
    prompt_ends = (owners == PROMPT) & (pad(owners[:, 1:], (0, 1), value=PADDING) != PROMPT)
    predicting = prompt_ends | (owners > PROMPT)
    logits = logits_at(
        model,
        model.get_output_embeddings(),
        prefix,
        ids,
        predicting,
        positions=positions,
        mask=additive(_seen(owners, len(prefix)), model.dtype),
    )
    predictions = predicting.sum(dim=1).tolist()
    return [_odds(part, answers) for part, answers in zip(logits.split(predictions), choices, strict=True)]


def _row(prompt: list[int], start: int, choices: Sequence[list[int]]) -> _Row:
    """A question whose `prompt` goes on at position `start`."""
    end = start + len(prompt)
    ids, positions, owners = list(prompt), list(range(start, end)), [PROMPT] * len(prompt)
    for number, choice in enumerate(choices, start=1):
        # Nothing is predicted after the end token.
        length = len(choice) - 1
        ids += choice[:length]
        positions += range(end, end + length)
        owners += [number] * length
    return _Row(torch.tensor(ids), torch.tensor(positions), torch.tensor(owners))


def _seen(owners: Tensor, shared: int) -> Tensor:
    """Which tokens a token sees, of shape (rows, 1, width, shared + width)."""
    width = owners.shape[1]
    asking, asked = owners.unsqueeze(2), owners.unsqueeze(1)
    earlier = torch.ones(width, width, dtype=torch.bool, device=owners.device).tril()
    return pad(earlier & ((asked == PROMPT) | (asked == asking)), (shared, 0), value=True).unsqueeze(1)


def _odds(logits: Tensor, choices: Sequence[list[int]]) -> Odds:
    """Log-likelihoods of the choices from the logits at the prompt's end and at their own tokens."""
    log_probabilities = logits.float().log_softmax(dim=-1).cpu()
    require_numbers(log_probabilities)
    first, rest = log_probabilities[0], log_probabilities[1:]
    odds = Odds([], [])
    for choice, own in zip(choices, rest.split([len(choice) - 1 for choice in choices]), strict=True):
        following = own.gather(1, torch.tensor(choice[1:]).unsqueeze(1)).flatten().tolist()
        values = [first[choice[0]].item(), *following]
        odds.texts.append(math.fsum(values[:-1]))
        odds.ends.append(values[-1])
    return odds
