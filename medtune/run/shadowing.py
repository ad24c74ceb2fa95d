"""What lies in the top folder and would be imported in place of a library's module, and of no digest.

`python -m stages.X` looks there first, so a `portalocker.py` would be imported by sacrebleu. Nothing else is
imported here: this runs before any library does.
"""

import sys
from importlib.machinery import PathFinder, all_suffixes
from pathlib import Path

from medtune.core.errors import MedtuneError

ROOT = Path(__file__).resolve().parents[2]
"""The folder with the packages `medtune` and `stages` that this process imports."""
OURS = ("benchmarks", "medtune", "stages", "tests")
NOT_IMPORTED = ("test",)
"""Python's tests of itself, which no library imports: a scratch file may be called so."""
IMPORTED_AT_START = ("sitecustomize", "usercustomize")
"""What Python imports of itself, if it is there."""

TAKES_A_PLACE = (
    "takes the place of a library's module, and no digest names it: rename it, or move it out of the folder"
)
"""What is wrong with a file; its name stands before."""


def require_no_shadows() -> None:
    """Refuse to run what would import other modules than those of the libraries that are installed."""
    for folder in dict.fromkeys((Path.cwd().resolve(), ROOT)):
        for path in sorted(folder.iterdir()):
            if _takes_a_place(path):
                raise MedtuneError(f"{path.name} {TAKES_A_PLACE}")


def _takes_a_place(path: Path) -> bool:
    name = _module(path)
    if not name.isidentifier() or name in (*OURS, *NOT_IMPORTED):
        return False
    elsewhere = PathFinder.find_spec(name, _other_folders())
    if path.is_dir() and not any((path / f"__init__{suffix}").is_file() for suffix in all_suffixes()):
        # A folder of Python files that is no package comes after every package and module, but adds to
        # another folder of its kind.
        is_joined = elsewhere is not None and elsewhere.origin is None
        return is_joined and any(_module(file) for file in path.rglob("*") if file.is_file())
    return name in (*sys.stdlib_module_names, *IMPORTED_AT_START) or elsewhere is not None


def _module(path: Path) -> str:
    """The name that a file or folder would be imported by; of others, whatever is no name."""
    if path.is_dir():
        return path.name
    suffixes = sorted(all_suffixes(), key=len, reverse=True)
    return next((path.name.removesuffix(end) for end in suffixes if path.name.endswith(end)), "")


def _other_folders() -> list[str]:
    """Where else modules are looked for."""
    ours = (ROOT, Path.cwd().resolve())
    return [entry for entry in sys.path if Path(entry).resolve() not in ours]
