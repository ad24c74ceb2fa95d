"""The section `answer` of params.yaml."""

from pydantic import Field

from medtune.core.section import Section


class AnswerParams(Section):
    """Which test questions are asked, and how."""

    name = "answer"

    launch: str = Field(pattern=r"^[\w-]+$")
    seed: int = Field(ge=0, lt=2**32)
    examples_per_kind: int | None = Field(ge=1)
    batch_size: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    unquantized: bool
