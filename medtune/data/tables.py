"""Counts as Markdown tables with bars of block characters.

They need no file and no script, are the same bytes wherever they are made, and read well unrendered too.
"""

from collections.abc import Mapping, Sequence

from medtune.core.markdown import Column, table

SHOWN = 20
"""Rows that have a bar each; what comes behind them has one row together, and none."""
BAR = 10
_EIGHTHS = ("", *"▏▎▍▌▋▊▉")


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


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * BAR * 8), 8)
    return "█" * whole + _EIGHTHS[rest]
