"""`medtune export --stage`: a stage of dvc.yaml that keeps the exports those of the adapter.

The shipped pipeline has none: exports take minutes and a gigabyte, and not everybody wants them.
"""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from medtune.core import answers
from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_text
from medtune.core.yaml_file import read_yaml
from medtune.export.places import EXPORT, METRICS, Format

PIPELINE_FILE = Path("dvc.yaml")
STAGE = "export"
DEPENDENCIES = (
    # What the code of answering and scoring means, and the code of exporting as it is.
    "digests/answer.json",
    "digests/evaluate.json",
    "medtune/export",
    "stages/export.py",
    "data/prepared/test.jsonl",
    "models/adapter/adapter_model.safetensors",
    "models/adapter/adapter_config.json",
    "models/adapter/tokenizer.json",
    "models/adapter/tokenizer_config.json",
    "models/adapter/chat_template.jinja",
    "models/adapter/README.md",
    "models/record.json",
    answers.TUNED.as_posix(),
)
SECTIONS = ("model", "prompt", "compute", "answer", "evaluate", "export")


def described(formats: Sequence[Format]) -> dict[str, Any]:
    """The stage as dvc.yaml has it."""
    # Not cached: they are made anew from the adapter, to the byte, and DVC would keep a second copy.
    outs = [f"{EXPORT / kind}" for kind in formats]
    return {
        "desc": "The adapter for other runtimes, each asked test questions in its own",
        "cmd": f"python -m stages.export {' '.join(formats)}",
        "deps": list(DEPENDENCIES),
        "params": list(SECTIONS),
        "outs": [{path: {"cache": False}} for path in (*outs, METRICS.as_posix())],
    }


def declare(formats: Sequence[Format], pipeline: Path = PIPELINE_FILE) -> bool:
    """Put the stage into dvc.yaml, or make it one of these formats; whether that changes it."""
    # For the words of its errors.
    if not isinstance(read_yaml(pipeline).get("stages"), dict):
        raise MedtuneError(f"{pipeline}: has no stages; run this in the top folder of the repository")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content: Any = yaml.load(pipeline.read_text(encoding="utf-8"))
    wanted = described(formats)
    if content["stages"].get(STAGE) == wanted:
        return False
    content["stages"][STAGE] = wanted
    text = StringIO()
    yaml.dump(content, text)
    write_text(pipeline, text.getvalue())
    return True
