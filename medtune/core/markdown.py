"""Texts and tables as Markdown that reads well unrendered too, and in which no name acts."""

import re
from collections.abc import Sequence

Column = tuple[str, str, Sequence[str]]
"""Its head, how its cells are aligned (< or >), and the cells."""

LONGEST_NAME = 60
_MARKDOWN = re.compile(r"[\\`*|<>\[\]&~$#!]|(?<!\w)_|_(?!\w)")


def table(columns: Sequence[Column]) -> str:
    """Columns side by side, each as wide as its widest cell."""
    padded = []
    for head, side, cells in columns:
        width = max(3, len(head), *map(len, cells))
        rule = "-" * (width - 1) + (":" if side == ">" else "-")
        padded.append([f"{head:{side}{width}}", rule, *(f"{cell:{side}{width}}" for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def plain(name: str) -> str:
    """A name as Markdown that shows it on one line, also within a table; a long one is cut."""
    name = " ".join(name.split())
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 1]}…"
    return _MARKDOWN.sub(r"\\\g<0>", name)


def code(text: str) -> str:
    """A text as code, between more backticks than stand together in it."""
    text = " ".join(text.split())
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, blank = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def fenced(lines: Sequence[str], language: str) -> str:
    """A block of code, between fences that are longer than any in it."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *lines, fence])
