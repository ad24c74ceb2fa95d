"""The rows of local files: which were added, removed or edited, and whether only their order changed.

    python -m medtune.explain.rows        # in the top folder of a revision; used by `medtune explain`

prints a JSON object a row, in the order of the sources: the id that `prepare` gives it, a digest of what it
says, and where it stands. Nothing is shown of the row itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from medtune.core.errors import MedtuneError, run
from medtune.data.faults import Rejects
from medtune.data.params import DataParams
from medtune.data.pool import Pool
from medtune.data.sources import read_sources

OWN = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Row:
    """A row of a source; `digest` is of all that it says, whatever the order of choices in the file."""

    id: str
    digest: str
    place: str


@dataclass(frozen=True)
class RowChanges:
    """Ids by what happened to them; `reordered` are those of both that stand in another order."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    reordered: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.edited or self.reordered)


def rows_in(folder: Path) -> list[Row]:
    """The rows of the local files of a revision in a folder, as the code that is here reads them."""
    variables = os.environ | {"PYTHONPATH": str(OWN), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-m", "medtune.explain.rows"]
    read = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if read.returncode:
        reason = (read.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MedtuneError(reason.removeprefix("error: "))
    return [Row(**json.loads(line)) for line in read.stdout.splitlines()]


def changes(before: Sequence[Row], after: Sequence[Row]) -> RowChanges:
    """What happened to the rows of one revision on the way to another, by their ids."""
    old, new = ({row.id: row.digest for row in rows} for rows in (before, after))
    common = [row.id for row in before if row.id in new]
    return RowChanges(
        added=[row.id for row in after if row.id not in old],
        removed=[row.id for row in before if row.id not in new],
        edited=[name for name in common if old[name] != new[name]],
        reordered=common != [row.id for row in after if row.id in old],
    )


def with_changes(before: bytes, after: bytes, ids: Mapping[str, tuple[int | None, int | None, int]]) -> bytes:
    """The lines of a JSONL file with some rows as another version of it has them.

    `ids` are those of the rows, each with its line in both, from 1 (None where it has none), and the line
    that it comes after where it is new, 0 for the top.
    """
    lines, others = lines_of(before), lines_of(after)
    inserted: dict[int, list[bytes]] = {}
    for old, new, above in ids.values():
        if old is None and new is not None:
            inserted.setdefault(above, []).append(others[new - 1])
        elif old is not None:
            lines[old - 1] = b"" if new is None else others[new - 1]
    return b"".join(b"".join([line, *inserted.get(at, [])]) for at, line in enumerate([b"", *lines]))


def in_order_of(before: bytes, order: Sequence[int]) -> bytes:
    """The lines of a JSONL file in another order; `order` has their numbers, from 1."""
    lines = lines_of(before)
    return b"".join(lines[number - 1] for number in order)


def lines_of(content: bytes) -> list[bytes]:
    """The lines of a file, each with its end, also the last."""
    return [line + b"\n" for line in content.removesuffix(b"\n").split(b"\n")]


def _printed() -> None:
    params = DataParams.load()
    local = {name: source for name, source in params.sources.items() if source.origin == "files"}
    if not local:
        return
    # A row of `data.without` is still in its file: the parameter is a difference of its own.
    params = params.model_copy(update={"sources": local, "without": [], "on_error": "drop"})
    pool, rejects = Pool(params.seed), Rejects()
    standing, sys.stdout = sys.stdout, sys.stderr
    read_sources(params, pool, rejects)
    sys.stdout = standing
    for position in range(len(pool)):
        example: dict[str, Any] = pool[position].model_dump(exclude_none=True)
        if "choices" in example:
            example["choices"] = sorted(example["choices"])
        said = sha256(json.dumps(example, sort_keys=True).encode()).hexdigest()
        print(json.dumps({"id": example["id"], "digest": said, "place": pool.place(position)}))


if __name__ == "__main__":
    run(_printed)
