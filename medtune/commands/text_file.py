"""A text file that a user names: read, or the one line that says why not. Imports neither torch nor DVC."""

from pathlib import Path

from medtune.core.errors import MedtuneError


def read_file(path: Path) -> str:
    """The text of a file, without a byte order mark; a MedtuneError if it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MedtuneError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise MedtuneError(f"{path}: not UTF-8 text: save the file as UTF-8") from None
    except OSError as error:
        raise MedtuneError(f"{path}: not readable: {error.strerror}") from None
