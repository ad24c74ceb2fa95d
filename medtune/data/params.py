"""The section `data` of params.yaml."""

from typing import Self

from pydantic import Field, model_validator

from medtune.core.section import Section, Strict


class KindParams(Strict):
    """How one kind of question is asked and how many examples of it each split gets at most."""

    question: str | None = None
    train: int | None = Field(default=None, ge=0)
    validation: int | None = Field(default=None, ge=0)
    test: int | None = Field(default=None, ge=0)


class DataParams(Section):
    """Where the questions come from and how they are split."""

    name = "data"

    source: str = Field(min_length=1)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    seed: int = Field(ge=0, lt=2**32)
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    kinds: dict[str, KindParams] = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("'validation' and 'test' are shares of the whole and must add up to less than 1")
        return self
