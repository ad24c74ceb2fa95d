"""The one kind of error a user is meant to read."""

import errno
import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches

NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
PATTERNS = {
    "^[0-9a-f]{64}$": "be 64 hexadecimal digits",
    "^[0-9a-f]{40}$": "be 40 hexadecimal digits, a full commit hash (`medtune pin` finds it)",
    r"^[\w-]+$": "be the name of a file in configs/accelerate, without .yaml",
}
"""The patterns of parameters, in words."""
INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended, by the shells' convention: 128 and the signal's number."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C where other words are in place than that the same command goes on."""


class MedtuneError(Exception):
    """Bad input or a broken file: the message names it and says what is accepted."""


def nearest(name: str, valid: list[str]) -> str:
    """A hint for a misspelt name: the closest valid one if there is one, else all of them."""
    close = get_close_matches(name, valid, n=1)
    return f"did you mean '{close[0]}'?" if close else f"accepted: {', '.join(valid)}"


def plain_words(message: str) -> str:
    """What pydantic says of a value, as a person would: "must be a valid number", "is missing"."""
    message = message.removeprefix("Value error, ")
    if message == "Field required":
        return "is missing"
    for pattern, words in PATTERNS.items():
        message = message.replace(f"match pattern '{pattern}'", words)
    message = re.sub(r" after validation, not \d+$", "", message)
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping of keys to values", message)
    return re.sub(r"^(Input|String|List|Dictionary|Value) should ", "must ", message)


def run(main: Callable[[], None]) -> None:
    """Call an entry point; bad input or a full disk become one line on standard error and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        # A name of a kind may have letters that a terminal has not: no reason to fail after hours.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        main()
        sys.stdout.flush()
    except MedtuneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stopped:
        kept = "what is done is kept: the same command goes on from there"
        print(f"\ninterrupted; {str(stopped) or kept}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read this (`| head`) has had enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        print(f"error: {error.filename or 'a file'} could not be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
