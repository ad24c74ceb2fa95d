"""What an export was asked before it counts, in words for its card; and whether that is enough to publish it.

Imports no torch.
"""

from collections.abc import Mapping
from typing import Any

from medtune.core.markdown import Column, table

LEAST_QUESTIONS = 50
"""Fewer show little: of 50 questions that are all answered the same, up to 6% of others may not be."""
LEAST_ANSWERS = 0.5
"""The share of identical answers below which an export is another model, whatever was tolerated."""

Forms = Mapping[str, Mapping[str, Any]]
"""What each form of a format was off by: `forms` in metrics/export.json."""


def describe_check(forms: Forms) -> str:
    """A paragraph and a table: how many questions, what came out, what was tolerated."""
    rows = list(forms.items())
    columns: list[Column] = [
        ("form", "<", [form for form, _ in rows]),
        ("in", "<", [one["runtime"] for _, one in rows]),
        ("questions", ">", [f"{one['questions']:,}" for _, one in rows]),
        ("same prompts", ">", [_least(one["prompts"]["identical"], one, "prompts") for _, one in rows]),
        ("same answers", ">", [_least(one["answers"]["identical"], one, "answers") for _, one in rows]),
        ("log-likelihood off by", ">", [_likelihood(one) for _, one in rows]),
        ("accuracy", ">", [f"{one['accuracy']['after']:.1%}" for _, one in rows]),
        ("of the adapter", ">", [f"{one['accuracy']['before']:.1%}" for _, one in rows]),
    ]
    return (
        "It was asked test questions in its own runtime, and compared with what the adapter said. In "
        "brackets is what was tolerated; of few questions that shows little.\n\n"
    ) + table(columns)


def too_weak(forms: Forms) -> str | None:
    """Why a check is too weak to publish on; None if it is not."""
    if not forms:
        return "was asked no question"
    for form, one in forms.items():
        if one["questions"] < LEAST_QUESTIONS:
            return f"{form} was asked fewer than {LEAST_QUESTIONS} questions ({one['questions']})"
        if one["prompts"]["identical"] < 1:
            return f"{form} had the same prompts in {one['prompts']['identical']:.1%} alone"
        if one["answers"]["identical"] < LEAST_ANSWERS:
            return f"{form} gave the same answers in {one['answers']['identical']:.1%} alone"
    return None


def _least(share: float, one: Mapping[str, Any], name: str) -> str:
    return f"{share:.1%} (at least {one['tolerated'][name]:.1%})"


def _likelihood(one: Mapping[str, Any]) -> str:
    found, tolerated = one["log_likelihood"], one["tolerated"]["log_likelihood"]
    return f"{found['mean']:.4f}, at most {found['largest']:.4f} nats (at most {tolerated:g})"
