"""The section `evaluate` of params.yaml."""

from pydantic import Field

from medtune.core.section import Section


class EvaluateParams(Section):
    """How answers are judged."""

    name = "evaluate"

    seed: int = Field(ge=0, lt=2**32)
    partial_f1: float = Field(gt=0, le=1)
    set_kinds: list[str]
