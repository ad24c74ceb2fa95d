"""YAML as DVC reads it, for params.yaml, dvc.yaml, dvc.lock and launch files.

DVC reads YAML 1.2 through ruamel.yaml: `yes` and `no` are words, `010` is ten, `5e-4` is a number. PyYAML,
which is of YAML 1.1, would disagree on each, and then `dvc.lock` would hold other parameters than those a
stage ran with.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from medtune.core.errors import MedtuneError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; anything else is an error that names the file and the line."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise MedtuneError(f"{path}: no such file; run this in the top folder of the repository") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MedtuneError(f"{path}: not readable as YAML: {error}") from None


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping in a text; `path` is only named in errors."""
    try:
        content = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MedtuneError(f"{path}, line {line}: {_problem(error)}") from None
    except (ValueError, YAMLError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MedtuneError(f"{path}: not readable as YAML: {reason}") from None
    if not isinstance(content, dict):
        raise MedtuneError(f"{path}: expected a mapping of sections")
    return content


def _problem(error: MarkedYAMLError) -> str:
    if isinstance(error, DuplicateKeyError):
        key = str(error.problem).removeprefix('found duplicate key "').partition('"')[0]
        return f"the key '{key}' stands twice"
    return str(error.problem or error.context)
