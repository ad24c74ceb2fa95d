"""A local JSONL file of examples, with the fields of `medtune.core.examples.Example`.

    {"id": "1", "question": "...?", "answer": "...", "kind": "definition", "group": "1"}

The file lies below `data/raw/`, which `dvc.yaml` declares as a dependency: an edit reruns `prepare`.
"""

from pathlib import Path

from medtune.core.errors import MedtuneError, nearest
from medtune.core.examples import read_jsonl
from medtune.core.hashing import check_sha256
from medtune.data.params import DataParams
from medtune.data.source import Source

RAW_FOLDER = Path("data/raw")


def load(params: DataParams) -> Source:
    """Read the file named by `data.source`; its kinds must be those of `data.kinds`."""
    path = Path(params.source)
    if not _is_watched(path):
        raise MedtuneError(
            f"params.yaml: data.source is '{path}'; a local file must lie below {RAW_FOLDER}/ (where DVC "
            "notices when it changes) and in no linked folder"
        )
    if not path.exists():
        raise MedtuneError(
            f"{path}: no such file; a colleague's comes with `dvc pull` if they ran `dvc add {path}`"
        )
    examples = read_jsonl(path)
    if params.sha256 is not None:
        check_sha256(path, params.sha256, "data.sha256")
    for example in examples:
        if example.kind not in params.kinds:
            raise MedtuneError(
                f"{path}: example '{example.id}' is of kind '{example.kind}', which params.yaml's data.kinds "
                f"lacks; {nearest(example.kind, list(params.kinds))}"
            )
    for kind in params.kinds:
        if not any(example.kind == kind for example in examples):
            found = sorted({example.kind for example in examples})
            raise MedtuneError(
                f"params.yaml: data.kinds has '{kind}', of which {path} has no example; "
                f"{nearest(kind, found)}"
            )
    return Source(examples, f"From the local file `{path}`, under whatever licence it carries.")


def _is_watched(path: Path) -> bool:
    """Whether an edit of the file changes the hash that DVC has of data/raw.

    The file may be a link, as to DVC's cache, whose content counts; of a linked folder nothing does.
    """
    folder = path.parent
    if not folder.is_relative_to(RAW_FOLDER) or ".." in folder.parts:
        return False
    return folder.resolve() == RAW_FOLDER.resolve() / folder.relative_to(RAW_FOLDER)
