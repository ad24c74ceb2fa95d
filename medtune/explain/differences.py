"""What differs between two revisions: parameters, code, packages, the base model, rows.

Each difference can be put into a copy of the one revision, or taken out of a copy of the other, unless it
says why not. Compared is what stands in the revisions, not what their runs have recorded.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from medtune.core.errors import MedtuneError
from medtune.core.outputs import ENVIRONMENT_FILE, read_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.data.params import DataParams
from medtune.data.tracking import PIPELINE_FILE, RAW_FOLDER, declare, is_pattern
from medtune.explain.rows import Row, RowChanges, changes, in_order_of, lines_of, rows_in, with_changes
from medtune.explain.trees import Tree, question_files
from medtune.run.code import (
    CODE,
    DIGESTS,
    ENTRY_POINTS,
    RUNTIME_LOCK,
    digest,
    entry_points,
    is_quantised,
    locked_versions,
)
from medtune.run.shipped import SHIPPED
from medtune.run.stage import LAUNCH_FILES

Change = Callable[[Path, Tree, Tree], None]
"""Puts into a folder, which is a copy of the first tree, what the second has in its place."""
CODE_STAGE = "code"
BASE_MODEL = ("source", "revision", "sha256", "license")
MOST_MODULES = 6
"""Changed modules that are tried one by one; more are tried as one."""
ABSENT = object()
SHOWN = 60
"""Characters of a value."""


@dataclass(frozen=True)
class Difference:
    """One thing that two revisions have otherwise.

    `stages` are those that read it: with none it can change no output. `change` is None where it cannot be
    tried, and `untried` says why.
    """

    kind: str
    name: str
    detail: str
    stages: tuple[str, ...]
    change: Change | None = None
    untried: str | None = None
    ids: RowChanges | None = None


def differences(before: Tree, after: Tree) -> list[Difference]:
    """Everything that differs and that a stage could read."""
    found = [*_parameters(before, after), *_launch_files(before, after), *_rows(before, after)]
    found += [*_modules(before, after), *_packages(before, after), *_pipeline(before, after)]
    found += [*_files_read(before, after), *_machines(before, after)]
    return [_untried_if_added(one) for one in found]


def added(stages: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the stages that no trial runs: somebody has added them to the shipped ones."""
    return tuple(name for name in stages if name not in SHIPPED)


def _untried_if_added(one: Difference) -> Difference:
    if one.change is None or not one.stages or added(one.stages) != one.stages:
        return one
    return replace(one, change=None, untried=f"trials run the shipped stages, and {_named(one.stages)} none")


def _named(stages: tuple[str, ...]) -> str:
    return f"{' and '.join(stages)} {'is' if len(stages) == 1 else 'are'}"


def set_parameter(folder: Path, keys: tuple[str, ...], value: Any) -> None:
    """Set or delete (ABSENT) a value in the params.yaml of a folder; its comments are lost."""
    path = folder / PARAMS_FILE
    content = place = read_yaml(path)
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    if value is ABSENT:
        place.pop(keys[-1], None)
    else:
        place[keys[-1]] = value
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(content, file)


def readers(folder: Path, section: str) -> tuple[str, ...]:
    """The stages of dvc.yaml that read a section of params.yaml; the check before them is none."""
    stages = read_yaml(folder / PIPELINE_FILE).get("stages", {})
    found = [name for name, stage in stages.items() if section in map(_section_of, stage.get("params") or ())]
    return tuple(name for name in found if name != CODE_STAGE)


def _section_of(declared: Any) -> str:
    return str(declared).partition(".")[0]


def _both(before: Tree, after: Tree, section: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*readers(before.folder, section), *readers(after.folder, section))))


def _parameters(before: Tree, after: Tree) -> Iterator[Difference]:
    old, new = (read_yaml(tree.folder / PARAMS_FILE) for tree in (before, after))
    units: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for keys in _differing(old, new):
        units.setdefault(_unit(keys), []).append(keys)
    for unit, leaves in units.items():
        shown = [f"{'.'.join(keys)}: {_shown(_at(old, keys))} -> {_shown(_at(new, keys))}" for keys in leaves]
        is_base = unit == ("model", "*")
        yield Difference(
            kind="base model" if is_base else "parameter",
            name="base model" if is_base else ".".join(unit),
            detail="; ".join(shown),
            stages=_both(before, after, leaves[0][0]),
            change=_set_all(leaves if is_base else [unit]),
        )


def _unit(keys: tuple[str, ...]) -> tuple[str, ...]:
    """What goes together: the base with its pins, a source with its columns."""
    if keys[0] == "model" and keys[-1] in BASE_MODEL:
        return ("model", "*")
    return keys[:3] if keys[:2] == ("data", "sources") else keys


def _set_all(leaves: list[tuple[str, ...]]) -> Change:
    def change(folder: Path, _: Tree, other: Tree) -> None:
        content = read_yaml(other.folder / PARAMS_FILE)
        for keys in leaves:
            set_parameter(folder, keys, _at(content, keys))
        source = str(read_yaml(folder / PARAMS_FILE).get("model", {}).get("source", ""))
        if source.startswith("./") and not (folder / source).exists() and (other.folder / source).exists():
            (folder / source).symlink_to((other.folder / source).resolve(), target_is_directory=True)
        declare_again(folder, other)

    return change


def declare_again(folder: Path, other: Tree) -> None:
    """Let dvc.yaml name the files that params.yaml names, and fetch those that only the other tree has."""
    for path in question_files(other.folder):
        if not (folder / path).exists() and (other.folder / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(other.folder / path, folder / path)
    try:
        params = DataParams.load(folder / PARAMS_FILE)
    except MedtuneError:
        # What is wrong with it the stages say.
        return
    places = [place for _, source, place, _ in params.places() if source.origin == "files"]
    files: set[Path] = set()
    for place in [*places, *params.held_out]:
        found = folder.glob(place) if is_pattern(place) else [folder / place]
        files |= {path.relative_to(folder) for path in found}
    declare([path for path in files if path.is_relative_to(RAW_FOLDER)], folder / PIPELINE_FILE)


def _at(content: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return ABSENT
        content = content[key]
    return content


def _differing(old: Any, new: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key in dict.fromkeys([*old, *new]):
        one, other = old.get(key, ABSENT), new.get(key, ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differing(one, other, (*above, str(key)))
        elif type(one) is not type(other) or one != other:
            yield (*above, str(key))


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "not set"
    words = " ".join(("null" if value is None else str(value)).split())
    return words if len(words) <= SHOWN else f"{words[:SHOWN]}..."


def _launch_files(before: Tree, after: Tree) -> Iterator[Difference]:
    for path in _other_files(before, after, LAUNCH_FILES, "*.yaml"):
        chosen = [
            section
            for section in ("finetune", "answer")
            for tree in (before, after)
            if _at(read_yaml(tree.folder / PARAMS_FILE), (section, "launch")) == path.stem
        ]
        stages = [name for section in dict.fromkeys(chosen) for name in _launched(before, section)]
        yield Difference("launch file", str(path), "other content", tuple(stages), _copy([path]))


def _launched(tree: Tree, section: str) -> tuple[str, ...]:
    return ("finetune",) if section == "finetune" else readers(tree.folder, section)


def _other_files(before: Tree, after: Tree, folder: Path, pattern: str) -> list[Path]:
    names = {
        path.relative_to(tree.folder)
        for tree in (before, after)
        for path in (tree.folder / folder).glob(pattern)
    }
    return sorted(name for name in names if _content(before, name) != _content(after, name))


def _content(tree: Tree, path: Path) -> bytes | None:
    file = tree.folder / path
    return file.read_bytes() if file.is_file() else None


def _copy(paths: list[Path]) -> Change:
    def change(folder: Path, _: Tree, other: Tree) -> None:
        for path in paths:
            if (other.folder / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(other.folder / path, folder / path)
            else:
                (folder / path).unlink(missing_ok=True)

    return change


def _modules(before: Tree, after: Tree) -> Iterator[Difference]:
    read: dict[str, list[str]] = {}
    entries_of = _entries(before, after)
    for entry in entries_of:
        old, new = (_meaning(tree, entry)["modules"] for tree in (before, after))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                read.setdefault(name, []).append(entry)
    units = [[name] for name in sorted(read)] if len(read) <= MOST_MODULES else [sorted(read)]
    if 1 < len(read) <= MOST_MODULES:
        # One may call what is new in another.
        units.append(sorted(read))
    for unit in units:
        entries = sorted({entry for name in unit for entry in read[name]}, key=entries_of.index)
        yield Difference(
            "module" if len(unit) == 1 else "modules",
            unit[0] if len(unit) == 1 else f"all {len(unit)} modules",
            _how(before, after, unit[0]) if len(unit) == 1 else ", ".join(unit),
            tuple(stage for entry in entries for stage in _stages_of(before, entry)),
            _copy([Path(name) for name in unit]),
        )


def stages_of(entry_point: str) -> tuple[str, ...]:
    """The stages whose module is an entry point of `stages`."""
    return ("answer-base", "answer-tuned", "answer-shots") if entry_point == "answer" else (entry_point,)


def _entries(before: Tree, after: Tree) -> list[str]:
    """The entry points that both have; a stage that only one has is a difference of dvc.yaml."""
    both = set(entry_points(before.folder)) & set(entry_points(after.folder))
    return [*ENTRY_POINTS, *sorted(both - set(ENTRY_POINTS))]


def _stages_of(tree: Tree, entry: str) -> tuple[str, ...]:
    """The stages of an entry point; of one that was added, those that depend on its digest."""
    if entry in ENTRY_POINTS:
        return stages_of(entry)
    return _dependents(tree, f"{DIGESTS}/{entry}.json")


def _declared(tree: Tree) -> Mapping[str, Any]:
    """The stages of dvc.yaml."""
    return read_yaml(tree.folder / PIPELINE_FILE).get("stages", {})


def _dependents(tree: Tree, path: str) -> tuple[str, ...]:
    return tuple(name for name, stage in _declared(tree).items() if path in (stage.get("deps") or ()))


def _files_read(before: Tree, after: Tree) -> Iterator[Difference]:
    """Files and folders of git, or that DVC tracks, that a stage reads and that are none of the above."""
    trees, known = (before, after), (str(RUNTIME_LOCK), str(LAUNCH_FILES), str(RAW_FOLDER))
    stages_of_both = [stage for tree in trees for stage in _declared(tree).values()]
    paths = {str(path) for stage in stages_of_both for path in stage.get("deps") or ()}
    made = _made_by(stages_of_both)
    for path in sorted(paths):
        # All code is what the stage `code` reads of it: what it means. A part of it a stage reads as it is.
        if "${" in path or path in CODE or any(Path(path).is_relative_to(one) for one in known):
            continue
        # What a stage makes is in neither tree, or is compared by what it is made of.
        if any(_overlap(path, name) for name in made) or _held(before, path) == _held(after, path):
            continue
        stages = tuple(dict.fromkeys(name for tree in trees for name in _dependents(tree, path)))
        is_file = all((tree.folder / path).is_file() for tree in trees)
        yield Difference(
            "file",
            path,
            "other content",
            tuple(name for name in stages if name != CODE_STAGE),
            change=_copy([Path(path)]) if is_file else None,
            untried=None if is_file else "it is no file of git in both",
        )


def _made_by(stages: list[Mapping[str, Any]]) -> set[str]:
    """The paths of all outputs."""
    made = [out for stage in stages for role in ("outs", "metrics", "plots") for out in stage.get(role) or ()]
    return {out if isinstance(out, str) else next(iter(out)) for out in made}


def _overlap(path: str, name: str) -> bool:
    """Whether one of two paths is the other or lies in it."""
    return Path(path).is_relative_to(name) or Path(name).is_relative_to(path)


def _held(tree: Tree, path: str) -> dict[str, bytes]:
    """The bytes of a file, or of those in a folder; of one that DVC tracks, of what git has of it."""
    place = tree.folder / path
    files = [place.with_name(f"{place.name}.dvc"), place, *(place.rglob("*") if place.is_dir() else ())]
    return {str(file.relative_to(tree.folder)): file.read_bytes() for file in files if file.is_file()}


def _how(before: Tree, after: Tree, name: str) -> str:
    one, other = (_content(tree, Path(name)) for tree in (before, after))
    return "new" if one is None else "deleted" if other is None else "other code"


def _meaning(tree: Tree, entry: str) -> dict[str, dict[str, str]]:
    quantised = is_quantised(read_yaml(tree.folder / PARAMS_FILE))
    try:
        return digest(f"stages.{entry}", quantised=quantised, root=tree.folder)
    except MedtuneError as error:
        raise MedtuneError(f"{tree.name}: {error}") from None
    except KeyError as error:
        raise MedtuneError(f"{tree.name}: {RUNTIME_LOCK} lacks {error}, which a stage imports") from None


def _packages(before: Tree, after: Tree) -> Iterator[Difference]:
    old, new = (locked_versions(tree.folder / RUNTIME_LOCK) for tree in (before, after))
    counted: dict[str, list[str]] = {}
    for entry in _entries(before, after):
        for tree in (before, after):
            for name in _meaning(tree, entry)["packages"]:
                counted.setdefault(name, []).extend(_stages_of(tree, entry))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            stages = tuple(dict.fromkeys(counted.get(name, ())))
            shown = f"{old.get(name, 'not there')} -> {new.get(name, 'not there')}"
            why = "packages are as they are installed here, in every trial" if stages else None
            yield Difference("package", name, shown, stages, untried=why)


def _pipeline(before: Tree, after: Tree) -> Iterator[Difference]:
    """Stages of dvc.yaml that are declared otherwise, but for the files of questions that they name."""
    old, new = (_declared(tree) for tree in (before, after))
    for name in dict.fromkeys([*old, *new]):
        if _without_questions(old.get(name)) != _without_questions(new.get(name)):
            yield Difference(
                "stage",
                name,
                f"declared otherwise in {PIPELINE_FILE}",
                (name,),
                untried=f"{PIPELINE_FILE} is each revision's own",
            )


def _machines(before: Tree, after: Tree) -> Iterator[Difference]:
    """What the revisions have noted of where their last runs were made; no hash vouches for it."""
    old, new = _noted(before), _noted(after)
    stages: dict[tuple[str, str], list[str]] = {}
    for key in _differing(old, new) if old and new else ():
        detail = f"{_shown(_at(old, key))} -> {_shown(_at(new, key))}"
        stages.setdefault((".".join(key[1:]), detail), []).append(key[0])
    for (name, detail), read in stages.items():
        why = "every trial runs on the machine that is here"
        yield Difference("machine", name, f"{detail}, by {ENVIRONMENT_FILE}", tuple(read), untried=why)


def _noted(tree: Tree) -> dict[str, Any]:
    try:
        noted = read_json(tree.folder / ENVIRONMENT_FILE)
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _without_questions(stage: Any) -> Any:
    if not isinstance(stage, Mapping):
        return stage
    kept = [path for path in stage.get("deps", []) if not Path(path).is_relative_to(RAW_FOLDER)]
    return {name: value for name, value in stage.items() if name != "desc"} | {"deps": kept}


def _rows(before: Tree, after: Tree) -> Iterator[Difference]:
    files = [
        {name for name in question_files(tree.folder) if (tree.folder / name).is_file()}
        for tree in (before, after)
    ]
    stages = ("prepare",)
    for why in [*before.missing.values(), *after.missing.values()]:
        yield Difference("rows", "questions", "not compared", stages, untried=why)
    for name in sorted(files[0] ^ files[1]):
        where = before.name if name in files[0] else after.name
        yield Difference("file", name, f"only in {where}", stages, _copy_questions(name))
    common = sorted(files[0] & files[1])
    other = [name for name in common if _content(before, Path(name)) != _content(after, Path(name))]
    if not other or before.missing or after.missing:
        return
    try:
        old, new = rows_in(before.folder), rows_in(after.folder)
    except MedtuneError as error:
        yield Difference(
            "file", ", ".join(other), f"rows not read: {error}", stages, _copy(list(map(Path, other)))
        )
        return
    for name in other:
        yield from _rows_of(before, name, _of_file(old, name), _of_file(new, name), stages)


def _copy_questions(name: str) -> Change:
    copy = _copy([Path(name)])

    def change(folder: Path, own: Tree, other: Tree) -> None:
        copy(folder, own, other)
        declare_again(folder, other)

    return change


def _of_file(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row.place.rpartition(", ")[0] == name]


def _rows_of(
    before: Tree, name: str, old: list[Row], new: list[Row], stages: tuple[str, ...]
) -> Iterator[Difference]:
    found = changes(old, new)
    if not found:
        detail = "other bytes, the same rows" if old or new else "held out, or no row of it is an example"
        yield Difference("file", name, detail, stages, _copy([Path(name)]))
        return
    parts = {
        "added": RowChanges(added=found.added),
        "removed": RowChanges(removed=found.removed),
        "edited": RowChanges(edited=found.edited),
        "reordered": RowChanges(reordered=found.reordered),
    }
    parts = {what: part for what, part in parts.items() if part}
    if len(parts) > 1 and not name.endswith((".jsonl", ".ndjson")):
        told = ", ".join(described_rows(part) for part in parts.values())
        yield Difference("rows", name, told, stages, _copy([Path(name)]), ids=found)
        return
    for what, part in parts.items():
        change = _copy([Path(name)]) if len(parts) == 1 else _change_rows(before, name, what, part, old, new)
        yield Difference("rows", f"{name}, {what}", described_rows(part), stages, change, ids=part)


def described_rows(found: RowChanges, most: int = 5) -> str:
    """How many rows, and the ids of the first."""
    told = [
        f"{len(names)} {what} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"
        for what, names in (("added", found.added), ("removed", found.removed), ("edited", found.edited))
        if names
    ]
    return ", ".join([*told, *(["another order"] if found.reordered else [])])


def _change_rows(
    before: Tree, name: str, what: str, part: RowChanges, old: list[Row], new: list[Row]
) -> Change:
    lines = [{row.id: int(re.findall(r"\d+$", row.place)[0]) for row in rows} for rows in (old, new)]

    def change(folder: Path, own: Tree, other: Tree) -> None:
        is_before = own.folder == before.folder
        mine, theirs = lines if is_before else lines[::-1]
        content = (own.folder / name).read_bytes()
        if what == "reordered":
            common = [row.id for row in (new if is_before else old) if row.id in mine]
            slots = sorted(mine[name] for name in common)
            order = list(range(1, len(lines_of(content)) + 1))
            for slot, one in zip(slots, common, strict=True):
                order[slot - 1] = mine[one]
            made = in_order_of(content, order)
        else:
            names = [*part.added, *part.removed, *part.edited]
            numbers = {one: (mine.get(one), theirs.get(one), _above(one, mine, theirs)) for one in names}
            made = with_changes(content, (other.folder / name).read_bytes(), numbers)
        (folder / name).write_bytes(made)

    return change


def _above(name: str, mine: Mapping[str, int], theirs: Mapping[str, int]) -> int:
    """The line of one's own behind which a row stands in the other file; 0 for the top."""
    at = theirs.get(name, 0)
    earlier = [(line, mine[other]) for other, line in theirs.items() if line < at and other in mine]
    return max(earlier, default=(0, 0))[1]
