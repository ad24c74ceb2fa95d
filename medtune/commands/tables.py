"""Tables of texts that come from data, for a terminal or as Markdown: nothing in them acts there."""

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_ACTS_IN_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!&@])")


def one_line(text: str, most: int | None = None) -> str:
    """A text in one line, without what moves a cursor or turns the direction, cut off after `most`."""
    line = " ".join(_CONTROL.sub(" ", text).split())
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def without_control(text: str) -> str:
    """A text as it is, in its lines, less what moves a cursor or turns the direction."""
    return "\n".join(_CONTROL.sub(" ", line) for line in text.split("\n"))


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first and the last to the left, numbers between them to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    last = len(header) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; whatever would be markup in a cell is text."""
    lines = [list(header), ["---"] * len(header), *([plain_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_markdown(text: str) -> str:
    """A text in which nothing is markup, a mention or a link."""
    return _ACTS_IN_MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", text)
