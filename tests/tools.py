"""What several tests need and no fixture gives."""

from hashlib import sha256
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
