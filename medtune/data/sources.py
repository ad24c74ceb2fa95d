"""Where questions come from: every source read into one pool, and what was left out on the way.

A source is a file or several (medtune/data/files.py), a hub dataset (medtune/data/hub.py) or the Human
Phenotype Ontology (medtune/data/ontology.py). Columns are found (medtune/data/columns.py), rows become
examples (medtune/data/forms.py), and examples with an id that is there already are refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from medtune.core.errors import MedtuneError, plain_words
from medtune.core.examples import Example
from medtune.core.hashing import content_sha256, require_sha256
from medtune.core.section import PARAMS_FILE
from medtune.data import ontology
from medtune.data.choices import shuffled
from medtune.data.columns import resolve_columns
from medtune.data.faults import REASONS, Fault, Rejects
from medtune.data.files import Fields, place_in, rows_of
from medtune.data.forms import Form
from medtune.data.grouping import SPLITS
from medtune.data.pace import with_pace
from medtune.data.params import DataParams, SourceParams, SplitName
from medtune.data.pool import NO_GROUP, UNDECIDED, Origin, Pool, digest
from medtune.data.tracking import HELD_OUT, files_at, source_key

FIRST_ROWS = 200
"""Rows of each file whose columns count as those of the source."""
FEW = 5
"""Questions; so many of a kind may have one answer by chance."""


@dataclass(frozen=True)
class Part:
    """Files of one source that are read as one: all of it, or a ready-made split.

    `folder` is where the cache has a dataset of the hub.
    """

    source: str
    params: SourceParams
    files: list[Path]
    split: SplitName | None
    folder: Path | None = None

    def place(self, file: Path, number: int) -> str:
        """Where a row stands, in words that are the same on every machine: left_out.csv has them."""
        if self.folder is None:
            return place_in(file, number)
        return place_in(Path(str(self.params.path)) / file.relative_to(self.folder), number)


class Withdrawn:
    """The rows of `data.without`: they are left out before anything else looks at them."""

    def __init__(self, params: DataParams, rejects: Rejects) -> None:
        self._names = frozenset(params.without)
        self._rejects = rejects
        self._splits: dict[int, int] = {}

    def takes(self, source: str, name: str, place: str | None = None, split: int = UNDECIDED) -> bool:
        """Whether the row with an id is withdrawn, which then is noted; `place` is the id where it is not
        told."""
        if name not in self._names:
            return False
        self._splits[digest(name)] = split
        self._rejects.add(source, place or name, name, "withdrawn", REASONS["withdrawn"])
        return True

    def has(self, key: int) -> bool:
        """Whether a row was withdrawn whose id has this digest: no other row is to get its id."""
        return key in self._splits

    def split_of(self, key: int, otherwise: int) -> int:
        """The split that such a row stood in."""
        return self._splits.get(key, otherwise)

    def require_all(self, pool: Pool) -> None:
        """Refuse an id that no row has: the row that was meant would stay, in silence."""
        for name in sorted(self._names):
            if not self.has(digest(name)):
                close = get_close_matches(name, [pool[position].id for position in range(len(pool))])
                hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
                raise MedtuneError(
                    f"{PARAMS_FILE}: data.without has '{name}', an id that no row of the sources has{hint}; "
                    "accepted: ids of rows that are there"
                )


def read_sources(params: DataParams, pool: Pool, rejects: Rejects) -> list[str]:
    """Read every source into the pool; returns what is to be printed about how they were read.

    MedtuneError: a source or a column is not there, or, with `data.on_error: fail`, all faulty rows at once.
    """
    said: list[str] = []
    ids: dict[int, int] = {}
    withdrawn = Withdrawn(params, rejects)
    for number, (name, source) in enumerate(params.sources.items()):
        if source.origin == "package":
            for example in ontology.examples(name, source, params, partial(withdrawn.takes, name)):
                pool.append(_shown(example, params), Origin(number, example.id, known_groups=True))
            continue
        parts = parts_of(name, source)
        form, words = _form(name, source, parts)
        said.append(words)
        prefix = f"{name}/" if len(params.sources) > 1 else ""
        start = len(pool)
        for part in parts:
            _read_part(part, form, number, prefix, params, pool, rejects, ids, withdrawn)
        said += _pointers_only(name, form, pool, start)
    if not len(pool):
        rejects.refuse_all()
    withdrawn.require_all(pool)
    return said + _one_answer_only(pool)


def _one_answer_only(pool: Pool) -> list[str]:
    """Warnings of kinds whose every question has the same answer: the wrong column, or nothing to learn.

    No error: a file with all the questions whose answer is yes may be one of several, and be split later.
    """
    kind, answer = pool.table.numbers("kind"), pool.table.numbers("answer")
    said = []
    for number, name in enumerate(pool.kinds):
        positions = np.flatnonzero(kind == number)
        if len(positions) >= FEW and (answer[positions] == answer[positions[0]]).all():
            said.append(
                f"warning: all {len(positions)} questions of the kind '{name}' have the answer "
                f"'{pool[int(positions[0])].answer}': is its column the right one? Nothing can be learned or "
                "measured with it"
            )
    return said


def _pointers_only(name: str, form: Form, pool: Pool, start: int) -> list[str]:
    """A warning of a source whose answers are all letters or digits, as of choices, but that has none."""
    ignored = form.columns.ignored
    first = range(start, min(len(pool), start + FIRST_ROWS))
    if len(first) < FEW or not ignored or any(pool[at].choices for at in first):
        return []
    answers = {pool[at].answer.upper() for at in first}
    if not any(answers <= set(marks) for marks in ("ABCDEFGHIJ", "0123456789")):
        return []
    return [
        f"warning: data.sources.{name}: every answer is a single letter or digit, as of choices, but no "
        f"choices are read: if they stand in {', '.join(ignored)}, name those in "
        f"data.sources.{name}.columns.choices"
    ]


def read_held_out(params: DataParams) -> tuple[list[tuple[str, Example]], list[str]]:
    """The questions of the files in `data.held_out`, each with where it stands, and what is to be printed.

    Their answers are not read. MedtuneError, with `data.on_error: fail`: all rows that ask nothing at once.
    """
    found: list[tuple[str, Example]] = []
    rejects = Rejects()
    for place in params.held_out:
        files = files_at(place, HELD_OUT)
        part = Part("held_out", SourceParams(path=place), files, None)
        form, _ = _form("held_out", part.params, [part], answered=False)
        for file, number, row in _rows_with_files(part):
            where = place_in(file, number)
            try:
                if isinstance(row, Fault):
                    raise row
                found.append((where, _example(form.example(row) | {"id": where, "group": NO_GROUP})))
            except Fault as fault:
                rejects.add("held_out", where, None, fault.reason, fault.detail)
    rejects.refuse(params.on_error)
    if not rejects.rows:
        return found, []
    first = rejects.rows[0]
    return found, [
        f"warning: of data.held_out {len(rejects.rows)} rows keep nothing out of training, as they ask "
        f"nothing; the first: {first.place}: {first.detail}"
    ]


def check_sources(params: DataParams) -> None:
    """Whether the sources are there and their columns can be told, without reading them."""
    for name, source in params.sources.items():
        if source.origin == "package":
            ontology.check(name, source, params)
        else:
            _form(name, source, parts_of(name, source))


def parts_of(name: str, source: SourceParams) -> list[Part]:
    """The files of a source that is no package; MedtuneError: they are not there or not the pinned ones."""
    if source.origin == "hub":
        from medtune.data.hub import hub_files

        fetched = hub_files(name, source)
        return [Part(name, source, files, split, fetched.folder) for split, files in fetched.files.items()]
    parts = _local_parts(name, source)
    if source.sha256 is not None:
        files = [file for part in parts for file in part.files]
        found = content_sha256(files, Path())
        require_sha256(", ".join(map(str, files)), found, source.sha256, f"data.sources.{name}.sha256")
    return parts


def local_sha256(name: str, source: SourceParams) -> str:
    """The sha256 of a source of local files as it is to be in params.yaml."""
    return content_sha256((file for part in _local_parts(name, source) for file in part.files), Path())


def _local_parts(name: str, source: SourceParams) -> list[Part]:
    places = [(source.path, None)] if source.splits is None else list(source.splits.items())
    parts = []
    for first, second in places:
        split, place = (None, first) if source.splits is None else (first, second)
        parts.append(Part(name, source, files_at(str(place), source_key(name, split)), split))  # type: ignore[arg-type]
    return parts


def _form(name: str, source: SourceParams, parts: list[Part], *, answered: bool = True) -> tuple[Form, str]:
    """How the rows of a source are read, by the columns of its first rows; and that in words."""
    first = [row for part in parts for row in _first_rows(part)]
    where = str(parts[0].files[0])
    if not first:
        _refuse_all(parts)
    columns = resolve_columns(name, source, first, where, answered=answered)
    form = Form(name, source, columns, source.first_choice, answered)
    words = columns.describe(name)
    if form.first_choice is None and any(form.answer_number(row) for row in first):
        first_choice = _first_choice(form, parts)
        form = replace(form, first_choice=first_choice)
        words += f"; answers are numbers, of which {first_choice} is the first choice"
    return form, words


def _first_rows(part: Part) -> list[Fields]:
    readable = ((row for _, row in rows_of(file) if not isinstance(row, Fault)) for file in part.files)
    return [row for rows in readable for row in islice(rows, FIRST_ROWS)]


def _refuse_all(parts: list[Part]) -> None:
    """Say of files in which no row can be read what is wrong with each; whatever `data.on_error` says."""
    rejects = Rejects()
    for part in parts:
        for file, number, row in _rows_with_files(part):
            if isinstance(row, Fault):
                rejects.add(part.source, part.place(file, number), None, row.reason, row.detail)
    rejects.refuse_all()


def _first_choice(form: Form, parts: list[Part]) -> int:
    """0 or 1, by the numbers that occur: 0 is only the first of some, as many as there are only the last."""
    seen_zero = seen_last = False
    rows = (row for part in parts for _, _, row in _rows_with_files(part))
    for row in with_pace(rows, f"looking for the first choice of {form.source}"):
        found = None if isinstance(row, Fault) else form.answer_number(row)
        if found is not None:
            seen_zero |= found[0] == 0
            seen_last |= found[0] == found[1]
    if seen_zero == seen_last:
        why = (
            "both 0 and the number of choices occur"
            if seen_zero
            else "neither 0 nor the number of choices occurs"
        )
        raise MedtuneError(
            f"params.yaml: data.sources.{form.source}: the answers are numbers, but of "
            f"{parts[0].files[0]} one "
            f"cannot tell whether they count from 0 or from 1, as {why}: set "
            f"data.sources.{form.source}.first_choice to 0 or 1 (or answer_as: text, if they are the "
            f"choices themselves)"
        )
    return 0 if seen_zero else 1


def _read_part(
    part: Part,
    form: Form,
    source: int,
    prefix: str,
    params: DataParams,
    pool: Pool,
    rejects: Rejects,
    ids: dict[int, int],
    withdrawn: "Withdrawn",
) -> None:
    split = UNDECIDED if part.split is None else SPLITS.index(part.split)
    may_validate = part.split == "train" and "validation" not in (part.params.splits or {})
    for file, number, row in with_pace(_rows_with_files(part), f"reading {part.source}"):
        place, name = part.place(file, number), None
        try:
            if isinstance(row, Fault):
                raise row
            fields = form.example(row)
            name = f"{prefix}{fields.get('id') or _id_of(fields)}"
            example = _example(fields | {"id": name, "group": fields.get("group", NO_GROUP)})
            key = digest(example.id)
            known = pool.table.split[ids[key]] if key in ids else withdrawn.split_of(key, split)
            if part.split is not None and known != split:
                # Sets of the hub count anew in each of their splits.
                example = example.model_copy(update={"id": f"{part.split}/{example.id}"})
                key = digest(example.id)
            if withdrawn.takes(part.source, example.id, place, split):
                continue
            if key in ids and "id" in fields:
                raise Fault("repeated_id", f"id '{example.id}' stands in {pool.place(ids[key])} too")
            # Made of the words, the id is repeated where these are, perhaps in the same line of another file.
            made, times = f"{example.id}-{number}", 1
            while key in ids or withdrawn.has(key):
                example = example.model_copy(update={"id": made if times == 1 else f"{made}-{times}"})
                key, times = digest(example.id), times + 1
        except Fault as fault:
            rejects.add(part.source, place, name, fault.reason, fault.detail)
            continue
        origin = Origin(source, place, split, may_validate=may_validate)
        position = pool.append(_shown(example, params), origin)
        ids.setdefault(key, position)


def _rows_with_files(part: Part) -> Iterator[tuple[Path, int, Fields | Fault]]:
    for file in part.files:
        for number, row in rows_of(file):
            yield file, number, row


def _example(fields: dict[str, object]) -> Example:
    try:
        return Example.model_validate(fields)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Fault("broken", f"{field} {plain_words(first['msg'])}".strip()) from None


def _id_of(fields: Fields) -> str:
    """An id for a row without one, of all that it says: the same wherever the row stands."""
    said = [
        fields.get(name)
        for name in ("system", "messages", "context", "question", "choices", "answer", "answers")
    ]
    return f"{digest(repr(said)):016x}"


def _shown(example: Example, params: DataParams) -> Example:
    """With its choices in the order of asking."""
    return shuffled(example, params.seed) if params.shuffle_choices else example
