"""How far a long loop over rows is, and how many it does a second: a line on stderr, none for a short one."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SHOWN_AFTER = 3.0
"""Seconds; what takes less is over before anybody wonders."""


def with_pace(rows: Iterable[T], doing: str, total: int | None = None, at_once: int = 1) -> Iterable[T]:
    """The rows as they are, or as many `at_once`; `doing` says in a word or two what is done with them."""
    return tqdm(
        rows,
        desc=doing,
        total=total,
        unit=" rows",
        unit_scale=True if at_once == 1 else at_once,
        delay=SHOWN_AFTER,
        # In a log file nothing is drawn over: each line stays.
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
    )
