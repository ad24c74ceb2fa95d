"""What a program does when nobody reads it any more, as after `medtune runs | head`."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from medtune.core.errors import MedtuneError

NOBODY_READS = 141
"""The exit code of what a closed pipe ended, by the shells' convention: 128 and the signal's number."""


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """End the program without a word, exit code 141, once what it prints goes nowhere.

    The signal itself, which ends other programs, would also end this one while it writes a file or speaks to
    a server. What was printed is sent before the block ends, or Python would complain after its end.
    """
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    except BrokenPipeError as error:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]
        if not gone:
            raise MedtuneError(f"a program or a server that this one wrote to has ended ({error})") from None
        for stream in gone:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(NOBODY_READS)


def _is_closed(stream: TextIO) -> bool:
    """Whether the other end of a pipe is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):
        # Windows has no poll, and a notebook's stream no number.
        return stream is sys.stdout
