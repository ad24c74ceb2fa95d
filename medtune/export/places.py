"""Where exports lie, by which names, and which bytes a check was of. Imports no torch."""

from pathlib import Path
from typing import Any, Literal

from medtune.core.errors import MedtuneError
from medtune.core.hashing import files_sha256

Format = Literal["merged", "gguf", "adapter"]
FORMATS: tuple[Format, ...] = ("merged", "gguf", "adapter")
ADAPTER = Path("models/adapter")
EXPORT = Path("models/export")
METRICS = Path("metrics/export.json")
CARD = "README.md"
RECORD = "record.json"
"""What went into an adapter; it lies beside the adapter's folder."""


def partial_folder(kind: Format) -> Path:
    """Where a format is made, before it is asked."""
    return EXPORT / f".{kind}.partial"


def refused_folder(kind: Format) -> Path:
    """Where one lies that drifted."""
    return EXPORT / f"refused-{kind}"


def folder_sha256(folder: Path) -> str:
    """Of all files in an export."""
    return files_sha256((path for path in folder.rglob("*") if path.is_file()), folder)


def trained_sha256() -> str:
    """Of what exports are made from: the adapter's folder with its card, and its record."""
    # DVC keeps a .gitignore there.
    files = [path for path in ADAPTER.iterdir() if path.is_file() and path.name != ".gitignore"]
    record = ADAPTER.with_name(RECORD)
    return files_sha256([*files, *([record] if record.is_file() else [])], Path())


def require_passed(found: dict[str, Any], formats: list[Format]) -> None:
    """Raise MedtuneError if a format of metrics/export.json drifted beyond its tolerance."""
    checked = {kind: found["formats"][kind] for kind in formats}
    beyond = [
        f"{form}: {reason}"
        for one in checked.values()
        for form, figures in one["forms"].items()
        for reason in figures["exceeded"]
    ]
    if beyond:
        refused = ", ".join(str(refused_folder(kind)) for kind in formats if not checked[kind]["passed"])
        raise MedtuneError(f"export: {'; '.join(beyond)}; what drifted lies in {refused}")
