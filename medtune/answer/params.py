"""The section `answer` of params.yaml."""

from pydantic import Field

from medtune.core.section import Section


class AnswerParams(Section):
    """Which test questions are asked, and how. Read by answer-base and answer-tuned."""

    name = "answer"

    launch: str = Field(pattern=r"^[\w-]+$")
    """As in finetune: the processes share the questions, and the answers are those of one process."""
    seed: int = Field(ge=0, lt=2**32)
    """Decides which test questions are drawn."""
    examples_per_kind: int | None = Field(ge=1)
    """At most so many of each kind; null takes the whole test split."""
    batch_size: int = Field(ge=1)
    """Questions asked at once; more are faster and take more memory."""
    max_new_tokens: int = Field(ge=1)
    """A longer answer is cut off; `truncated` in metrics/details.json is the share of those."""
    unquantized: bool
    """With a quantised base, ask on the unquantised one too: how far do the answers drift?"""
