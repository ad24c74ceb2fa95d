"""The section `evaluate` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from medtune.core.section import Section

ChoiceRule = Literal["sum", "per_character", "whole"]
MetricName = Literal["accuracy", "token_f1", "chrf", "brier"]


class EvaluateParams(Section):
    """How answers are judged. Read by evaluate, which takes seconds."""

    name = "evaluate"

    seed: int = Field(ge=0, lt=2**32)
    """Of the bootstrap that intervals come from."""
    partial_f1: float = Field(gt=0, le=1)
    """From this token-F1 on, an answer that is not exact counts as partial, unless it says the opposite."""
    choice_rule: ChoiceRule
    """The likeliest of a question's choices counts: by the log-likelihood of its text (sum), by that per
    character, as long choices are less likely by their length, or as the whole answer, with the token that
    ends it. All three accuracies are in metrics/details.json."""
    near_relative: float = Field(gt=0, le=1)
    """From this similarity to a training question of its kind on, a test question has a near relative there:
    figures are given for questions with and without one. The share of common character 4-grams."""
    set_kinds: list[str]
    """Kinds whose answers are sets, joined by ";": order does not matter, an overlap is partial."""


class DiffParams(Section):
    """What `medtune diff --fail-if-worse` lets pass. Read by no stage."""

    name = "diff"

    tolerated_loss: dict[MetricName, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """By metric (accuracy, token_f1, chrf, brier), in its own unit: a loss that is shown and larger makes it
    fail. 0 where none is given."""

    def largest(self, metric: str) -> float:
        """The largest loss of a metric that passes."""
        return next((loss for name, loss in self.tolerated_loss.items() if name == metric), 0.0)
