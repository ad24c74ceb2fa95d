"""What the page is made of: sections of tables and charts. The template gives them their form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.evaluate.models import LOOKUP, NAMES

SYMBOLS = {
    "circle": "●",
    "square": "■",
    "triangle-up": "▲",
    "diamond": "◆",
    "cross": "✚",
    "triangle-down": "▼",
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


def series_of(models: Sequence[str]) -> list[Series]:
    """The legend of models, always in the same colours and shapes."""
    shapes = dict(zip([model for model in NAMES if model != LOOKUP], SYMBOLS, strict=True))
    return [Series(NAMES[model], f"var(--{model})", shapes[model]) for model in models]
