"""Counts as Markdown tables with bars of block characters.

They need no file and no script, are the same bytes wherever they are made, and read well unrendered too.
"""

import re
from collections.abc import Mapping, Sequence

Column = tuple[str, str, Sequence[str]]
"""Its head, how its cells are aligned (< or >), and the cells."""

SHOWN = 20
"""Rows that have a bar each; what comes behind them has one row together, and none."""
BAR = 10
LONGEST_NAME = 60
_EIGHTHS = ("", *"▏▎▍▌▋▊▉")
_MARKDOWN = re.compile(r"[\\`*|<>\[\]&~$#!]|(?<!\w)_|_(?!\w)")


def table(columns: Sequence[Column]) -> str:
    """Columns side by side, each as wide as its widest cell."""
    padded = []
    for head, side, cells in columns:
        width = max(3, len(head), *map(len, cells))
        rule = "-" * (width - 1) + (":" if side == ">" else "-")
        padded.append([f"{head:{side}{width}}", rule, *(f"{cell:{side}{width}}" for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def bars(
    head: str,
    labels: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    chance: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """A table with a row for each label and, for each split, its counts, their shares, and these as bars.

    The largest share has the longest bar. `chance` is shown beside the counts.
    """
    shares = {split: [count / (sum(found) or 1) for count in found] for split, found in counts.items()}
    largest = max(share for found in shares.values() for share in found[:SHOWN]) or 1
    columns: list[Column] = [(head, "<", labels)]
    for split, found in counts.items():
        columns.append((split, ">", [f"{count:,}" for count in found]))
        if chance:
            columns.append(("by chance", ">", chance[split]))
        drawn = [_bar(share / largest) if row < SHOWN else "" for row, share in enumerate(shares[split])]
        shown = [f"{bar} {share:.1%}".lstrip() for bar, share in zip(drawn, shares[split], strict=True)]
        columns.append(("", "<", shown))
    return table(columns)


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


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * BAR * 8), 8)
    return "█" * whole + _EIGHTHS[rest]
