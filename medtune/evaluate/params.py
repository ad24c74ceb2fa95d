"""The section `evaluate` of params.yaml."""

from typing import Literal

from pydantic import Field

from medtune.core.section import Section

ChoiceRule = Literal["sum", "per_character"]


class EvaluateParams(Section):
    """How answers are judged. Read by evaluate, which takes seconds."""

    name = "evaluate"

    seed: int = Field(ge=0, lt=2**32)
    """Of the bootstrap that intervals come from."""
    partial_f1: float = Field(gt=0, le=1)
    """From this token-F1 on, an answer that is not exact counts as partial, unless it says the opposite."""
    choice_rule: ChoiceRule
    """The likeliest of a question's choices counts: by its log-likelihood (sum), or by that per character, as
    long choices are less likely by their length. Both accuracies are in metrics/details.json."""
    set_kinds: list[str]
    """Kinds whose answers are sets, joined by ";": order does not matter, an overlap is partial."""
