"""Questions from a dataset of the hub at one commit: the files that `datasets.load_dataset` would read.

    medqa:
      path: GBaker/MedQA-USMLE-4-options
      revision: 0fb9...            # the full commit hash; `medtune pin medqa` writes both
      sha256: 5d1c...

Which files a configuration and a split have is told by the library `datasets` itself: it is shown a folder
with the dataset's card and, for each file of the commit, an empty one of its name. So the list of names and
the card are all that has to be known, the same without a network as with one, and no script is ever run. Then
these files are fetched as they are, to be read by medtune/data/files.py.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from glob import escape
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard
from huggingface_hub.errors import LocalEntryNotFoundError

from medtune.core.errors import MedtuneError, nearest
from medtune.core.hashing import content_sha256
from medtune.core.hub import Repository, ask, explained, fetch_large, listing, require_pinned, snapshot
from medtune.core.yaml_file import read_yaml
from medtune.data.files import COMPRESSIONS, READERS, format_of
from medtune.data.params import SourceParams, SplitName

if TYPE_CHECKING:
    from datasets import DatasetBuilder

CARDS = ["README.md", ".huggingface.yaml", "dataset_infos.json"]
"""What the library takes configurations and their files from."""
WITHOUT_EFFECT = ("name", "version", "data_dir", "data_files", "description", "features")
"""Fields of a configuration that change nothing of how a file is read; `features` name the columns' types."""
SHOWN = 8
"""Names in an error, of a dataset that may have thousands."""

FilesBySplit = dict[SplitName | None, list[Path]]


@dataclass(frozen=True)
class Fetched:
    """The files of a source in the hub's cache, by the split that they are for; None: not decided yet."""

    folder: Path
    files: FilesBySplit

    @property
    def sha256(self) -> str:
        """Over all files, by their names in the dataset."""
        return content_sha256((file for files in self.files.values() for file in files), self.folder)


def hub_files(name: str, source: SourceParams) -> Fetched:
    """The files of the source `name`, each split's in the order of its rows; fetched if the cache lacks them.

    MedtuneError: revision, sha256, configuration or split are missing or wrong, the files are of a format
    that is not read, or they cannot be had.
    """
    fetched = fetch(name, source)
    key, place = f"data.sources.{name}.sha256", f"{source.path} at {source.revision}"
    if source.sha256 is None:
        raise MedtuneError(
            f"params.yaml: {key} is missing; for {place} it is {fetched.sha256} "
            f"(`medtune pin {name}` writes it)"
        )
    if source.sha256 != fetched.sha256:
        raise MedtuneError(
            f"{place}: the sha256 of its files is {fetched.sha256}, but {key} in params.yaml says "
            f"{source.sha256}; `medtune pin {name}` writes the present one"
        )
    return fetched


def fetch(name: str, source: SourceParams) -> Fetched:
    """The files of the source `name`, whatever their sha256; MedtuneError as for `hub_files`."""
    repository = repository_of(name, source)
    require_pinned(repository)
    with explained(repository):
        chosen = _names(repository, source)
        names = sorted({file for files in chosen.values() for file in files})
        folder = _fetched(repository, names)
    return Fetched(folder, {split: [folder / file for file in files] for split, files in chosen.items()})


def repository_of(name: str, source: SourceParams) -> Repository:
    """The repository that the `path` of the source `name`, a hub id, names."""
    key = f"data.sources.{name}"
    return Repository("dataset", name, str(source.path), source.revision, f"{key}.path", f"{key}.revision")


def _fetched(repository: Repository, names: list[str]) -> Path:
    patterns = [escape(name) for name in names]
    with suppress(LocalEntryNotFoundError):
        return snapshot(repository, patterns, local=True)
    ask(repository, names[0])
    fetch_large(repository, names)
    return snapshot(repository, patterns)


def _names(repository: Repository, source: SourceParams) -> dict[SplitName | None, list[str]]:
    """The names of the files that are to be read, by the split that they are for."""
    cards, names = _described(repository)
    _require_no_script(repository, names)
    with _likeness(cards, names) as folder:
        found = _by_split(folder, repository, source.config)
    chosen = _chosen(repository, source, list(found))
    for split in chosen.values():
        if not found[split]:
            raise MedtuneError(
                f"{repository.pinned} has no file of the split {split} that datasets would read"
            )
        for file in found[split]:
            _require_readable(repository, file)
    return {split: found[theirs] for split, theirs in chosen.items()}


def _described(repository: Repository) -> tuple[Path, set[str]]:
    """The folder with the dataset's card, and the names of all files of the commit."""
    with suppress(LocalEntryNotFoundError):
        folder = snapshot(repository, CARDS, local=True)
        if (names := listing(repository)) is not None:
            return folder, names
    ask(repository, CARDS[0])
    folder = snapshot(repository, CARDS)
    return folder, listing(repository) or set()


def _require_no_script(repository: Repository, names: Collection[str]) -> None:
    script = f"{repository.id.rpartition('/')[2]}.py"
    if script in names:
        raise MedtuneError(
            f"{repository.pinned} is made by a script ({script}), and what is downloaded "
            f"is not executed; accepted: a dataset of data files ({', '.join(READERS)})"
        )


@contextmanager
def _likeness(cards: Path, names: Collection[str]) -> Iterator[Path]:
    """A folder that has the names of a dataset's files and, but for its cards, nothing in them."""
    with TemporaryDirectory(prefix="medtune-hub-") as scratch:
        folder = Path(scratch).resolve() / "dataset"
        folder.mkdir()
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise MedtuneError(f"the hub lists a file '{name}', which would lie outside the dataset")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name in CARDS:
                shutil.copyfile(cards / name, folder / name)
            else:
                (folder / name).touch()
        yield folder


def _by_split(folder: Path, repository: Repository, config: str | None) -> dict[str, list[str]]:
    """The names of the files of each split of a configuration, as the library finds them."""
    # Imported here: it takes seconds to load, and only a dataset of the hub needs it.
    import datasets

    try:
        _require_own_files(repository, folder)
        configs = datasets.get_dataset_config_names(str(folder))
        default = datasets.get_dataset_default_config_name(str(folder))
        _require_config(repository, config, configs, default)
        cache = str(folder.parent / "cache")
        builder = datasets.load_dataset_builder(str(folder), name=config, cache_dir=cache)
    except MedtuneError:
        raise
    except Exception as error:
        # Of whatever type: what the card says is anybody's.
        raise MedtuneError(_undetermined(repository, folder, error)) from None
    found = {
        str(split): [Path(file).relative_to(folder).as_posix() for file in files]
        for split, files in (builder.config.data_files or {}).items()
    }
    _require_plain(repository, builder, {name for names in found.values() for name in names})
    return found


def _undetermined(repository: Repository, folder: Path, error: Exception) -> str:
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return (
        f"{repository.pinned}: datasets finds no data files of a known format there "
        f"({type(error).__name__}): it has {', '.join(files[:SHOWN])}{more}; accepted: {', '.join(READERS)}"
    )


def _require_config(
    repository: Repository, config: str | None, configs: list[str], default: str | None
) -> None:
    key = repository.key.removesuffix("path") + "config"
    if config is None and default is None and len(configs) > 1:
        raise MedtuneError(
            f"params.yaml: {key} is missing: {repository.id} has several; accepted: {', '.join(configs)}"
        )
    if config is not None and config not in configs:
        raise MedtuneError(
            f"params.yaml: {key} is '{config}', which {repository.id} does not have; "
            f"{_choice(config, configs)}"
        )


def _require_own_files(repository: Repository, folder: Path) -> None:
    """Refuse a card whose configurations name data by an address or a place of this machine."""
    found: list[Any] = []
    if (folder / CARDS[0]).is_file():
        found.append(DatasetCard.load(folder / CARDS[0]).data.to_dict().get("configs"))
    if (folder / CARDS[1]).is_file():
        found.append(read_yaml(folder / CARDS[1]).get("configs"))
    for place in _texts(found):
        if "://" in place or place.startswith(("/", "~")) or ".." in PurePosixPath(place).parts:
            raise MedtuneError(
                f"{repository.pinned}: its card names data elsewhere ({place}), which its commit does not pin"
            )


def _texts(value: Any) -> Iterator[str]:
    """Every text in a nest of lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _require_plain(repository: Repository, builder: "DatasetBuilder", names: Collection[str]) -> None:
    """Refuse a configuration that has files read in another way than medtune/data/files.py does."""
    config: Any = builder.config
    plain = type(config)()
    usual: Mapping[str, Any] = {"sep": "\t"} if all(format_of(Path(name)) == ".tsv" for name in names) else {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in WITHOUT_EFFECT or value in (getattr(plain, field.name), usual.get(field.name)):
            continue
        raise MedtuneError(
            f"{repository.pinned}: its card has the files read with {field.name}: "
            f"{value!r}, which medtune does not do; accepted: files that are read as they are"
        )


def _chosen(repository: Repository, source: SourceParams, there: list[str]) -> dict[SplitName | None, str]:
    """The dataset's split for each of ours; None: for the one that is to be split here."""
    key = repository.key.removesuffix("path")
    if source.splits is not None:
        for ours, theirs in source.splits.items():
            _require_split(repository, source, f"{key}splits.{ours}", theirs, there)
        return {ours: theirs for ours, theirs in source.splits.items()}  # noqa: C416
    if source.split is not None:
        _require_split(repository, source, f"{key}split", source.split, there)
        return {None: source.split}
    if len(there) == 1:
        return {None: there[0]}
    raise MedtuneError(
        f"params.yaml: {key}split is missing: {repository.id} has {', '.join(there)}; set one of them, "
        f"or take several as they are, such as {key}splits: {{train: {there[0]}, test: {there[-1]}}}"
    )


def _require_split(
    repository: Repository, source: SourceParams, key: str, split: str, there: list[str]
) -> None:
    if split not in there:
        where = f" in the configuration {source.config}" if source.config else ""
        raise MedtuneError(
            f"params.yaml: {key} is '{split}', a split that {repository.id} does not have{where}; "
            f"{_choice(split, there)}"
        )


def _choice(name: str, there: list[str]) -> str:
    hint = nearest(name, there)
    return hint if hint.startswith("accepted") else f"{hint} It has {', '.join(there)}"


def _require_readable(repository: Repository, file: str) -> None:
    if format_of(Path(file)) is None:
        raise MedtuneError(
            f"{repository.pinned}: {file} is of a format that is not read; accepted: "
            f"{', '.join(READERS)}, each also with {' or '.join(COMPRESSIONS)}"
        )
