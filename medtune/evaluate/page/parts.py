"""What the page is made of: sections of tables and charts. The template gives them their form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODEL_NAMES = {
    "base": "untuned",
    "tuned": "tuned",
    "shots": "untuned, with examples",
    "most_frequent": "most frequent answer",
    "nearest": "nearest question's answer",
}
"""What a reader calls the models and the lookups."""
SYMBOLS = {
    "circle": "●",
    "square": "■",
    "triangle-up": "▲",
    "diamond": "◆",
    "cross": "✚",
}
"""Vega's shapes, and as characters: a legend does not rest on colour alone."""


@dataclass(frozen=True)
class Chip:
    """A word in a coloured field; `tone` is good, bad or plain."""

    text: str
    tone: str


Cell = str | Chip


@dataclass(frozen=True)
class Table:
    """Rows of cells, of which the first `heads` name the row; folded, it opens on demand."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    heads: int = 1
    words: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Series:
    """A thing of a chart's legend: its name, the CSS variable of its colour, and its shape."""

    name: str
    color: str
    shape: str

    @property
    def symbol(self) -> str:
        """The shape as a character."""
        return SYMBOLS[self.shape]


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification; `form` is wide (as the page), square or own (its own width, scrolled)."""

    title: str
    spec: Mapping[str, Any]
    legend: Sequence[Series] = ()
    form: str = "wide"
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it; `anchor` is its address within the page."""

    anchor: str
    title: str
    text: Sequence[str]
    parts: Sequence[Table | Chart]


def name_of(model: str) -> str:
    """What a reader calls a model."""
    return MODEL_NAMES.get(model, model)


def series_of(models: Sequence[str]) -> list[Series]:
    """The legend of models, always in the same colours and shapes."""
    shapes = dict(zip(MODEL_NAMES, SYMBOLS, strict=True))
    return [
        Series(name_of(model), f"var(--{model if model in shapes else 'other'})", shapes.get(model, "circle"))
        for model in models
    ]
