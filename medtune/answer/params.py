"""The section `answer` of params.yaml."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from medtune.core.section import Section
from medtune.model.params import ModelParams, PromptParams
from medtune.run.params import ComputeParams


class AnswerParams(Section):
    """Which test questions are asked, and how. Read by answer-base, answer-tuned and answer-shots."""

    name = "answer"

    launch: str = Field(pattern=r"^[\w-]+$")
    """As in finetune: the processes share the questions, and the answers are those of one process."""
    seed: int = Field(ge=0, lt=2**32)
    """Decides which test questions are drawn."""
    examples_per_kind: int | None = Field(ge=1)
    """At most so many of each kind; null takes the whole test split."""
    batch_size: int = Field(ge=1)
    """Questions asked at once; more are faster and take more memory."""
    tokens_per_batch: int = Field(default=16384, ge=1)
    """Of a batch's prompts and answers (padded), unless it is one question: long ones take more memory."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that answer. float32: an answer does not depend on the batch it is asked in. bfloat16:
    half the memory, faster where there are instructions for it; near ties go either way."""
    max_new_tokens: int = Field(ge=1)
    """A longer answer is cut off; `truncated` in metrics/details.json is the share of those."""
    shots: int = Field(default=0, ge=0, le=16)
    """Ask the untuned model once more, with so many training examples of its kind, 16 at most, before each
    question: is it enough to show them? 0: do not. A kind needs as many training examples."""
    unquantized: bool
    """With a quantised base, ask on the unquantised one too: how far do the answers drift?"""


@dataclass(frozen=True)
class Settings:
    """The sections of params.yaml that decide what a model answers."""

    model: ModelParams
    prompt: PromptParams
    compute: ComputeParams
    answer: AnswerParams

    @classmethod
    def load(cls) -> "Settings":
        """As params.yaml in the current folder has them."""
        return cls(ModelParams.load(), PromptParams.load(), ComputeParams.load(), AnswerParams.load())
