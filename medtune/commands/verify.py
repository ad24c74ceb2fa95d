"""`medtune verify`: whether each link from the data to the metrics holds.

A link is computed anew from what it starts with, and compared with what is there: the questions from their
source, the metrics from the predictions, every hash from the file's bytes. Only training and generation
are taken from `dvc.lock` and `provenance.json`; `medtune verify --rerun` (medtune/commands/rerun.py) repeats them.
"""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.examples import read_jsonl, write_jsonl
from medtune.core.hashing import file_sha256
from medtune.core.outputs import write_curve
from medtune.core.section import PARAMS_FILE, read_yaml
from medtune.data.params import DataParams
from medtune.data.sources import load_source
from medtune.data.splits import split_by_group
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.summary import predict, summarise
from medtune.model.files import locate
from medtune.model.params import ModelParams
from medtune.run.lock_file import dvc_md5, entries, read_lock

PREPARED = Path("data/prepared")
ADAPTER = Path("models/adapter")
CHECKPOINTS = Path("models/checkpoints")
METRICS = Path("metrics")


@dataclass(frozen=True)
class Link:
    """A link of the chain; `broken` says where it is broken, or is None."""

    name: str
    broken: str | None


def verify_chain() -> list[Link]:
    """Check every link of the repository in the current folder."""
    checks: dict[str, Callable[[], str | None]] = {
        "parameters and code are those of dvc.lock": lambda: _hashes("deps", code=True) or _parameters(),
        "the stages of dvc.lock join": _joints,
        "source -> questions": _questions,
        "base model is the pinned one": _base_model,
        "questions, adapter, predictions, metrics are those of dvc.lock": lambda: (
            _hashes("deps", code=False) or _hashes("outs", code=False)
        ),
        "questions, code, parameters -> adapter": _provenance,
        "best checkpoint -> adapter": _best_checkpoint,
        "training history -> metrics and curves": _training,
        "predictions -> baseline metrics": lambda: _scores("baseline"),
        "predictions -> evaluation metrics": lambda: _scores("evaluation"),
    }
    return [Link(name, _reason(check)) for name, check in checks.items()]


def uncommitted() -> list[str]:
    """Files that say or decide what is here and are not as the commit has them; none without git."""
    git = ["git", "status", "--porcelain", "--", "dvc.lock", "dvc.yaml", "params.yaml", "constraints.txt"]
    result = subprocess.run([*git, "medtune", "stages", "metrics"], capture_output=True, text=True)
    timing = "metrics/timing.json"
    return [line[3:] for line in result.stdout.splitlines() if line[3:] != timing]


def _reason(check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    except MedtuneError as error:
        return str(error)
    except FileNotFoundError as error:
        return f"{error.filename}: not there; run `dvc pull` to fetch it or `dvc repro` to make it"
    except (ValueError, KeyError, TypeError) as error:
        return f"not readable: {error!r}"


def _hashes(role: str, *, code: bool) -> str | None:
    for entry in entries(read_lock()):
        is_code = entry.path.endswith(".py") or entry.path == "constraints.txt"
        if entry.role == role and is_code == code and (found := dvc_md5(Path(entry.path))) != entry.md5:
            return f"{entry.path}: its md5 is {found}, but dvc.lock has {entry.md5} ({entry.stage})"
    return None


def _parameters() -> str | None:
    here = read_yaml(PARAMS_FILE)
    for name, stage in read_lock().items():
        for section, recorded in stage["params"][PARAMS_FILE.name].items():
            if here.get(section) != recorded:
                return f"{PARAMS_FILE}: the section '{section}' is not that of dvc.lock ({name})"
    return None


def _joints() -> str | None:
    known = list(entries(read_lock()))
    made = {entry.path: entry for entry in known if entry.role == "outs"}
    for entry in known:
        source = made.get(entry.path)
        if entry.role == "deps" and source is not None and source.md5 != entry.md5:
            return f"{entry.stage} read another {entry.path} than {source.stage} wrote"
    return None


def _questions() -> str | None:
    params = DataParams.load()
    splits = split_by_group(load_source(params).examples, params)
    with TemporaryDirectory() as folder:
        for split, examples in splits.items():
            again = Path(folder) / f"{split}.jsonl"
            write_jsonl(again, examples)
            if again.read_bytes() != (PREPARED / again.name).read_bytes():
                return f"{PREPARED / again.name}: not what the source and the parameters give"
    return None


def _base_model() -> str | None:
    found, recorded = locate(ModelParams.load()).sha256, _provenance_file()["base_model"]["sha256"]
    return None if found == recorded else f"its sha256 is {found}, but the adapter was trained on {recorded}"


def _provenance() -> str | None:
    provenance = _provenance_file()
    for name, recorded in (provenance["data"] | provenance["code"]).items():
        if file_sha256(Path(name)) != recorded:
            return f"{name}: not the file that {ADAPTER / 'provenance.json'} names"
    lock = read_lock()["finetune"]["params"][PARAMS_FILE.name]
    for section in provenance["parameters"]:
        if not _agree(lock[section], provenance["parameters"][section]):
            return f"{PARAMS_FILE}: '{section}' is not what {ADAPTER / 'provenance.json'} names"
    return None


def _agree(written: Any, resolved: Any) -> bool:
    """Whether resolved parameters are the written ones, with defaults for what was left out."""
    if isinstance(written, dict) and isinstance(resolved, dict):
        return all(key in resolved and _agree(value, resolved[key]) for key, value in written.items())
    return written == resolved


def _best_checkpoint() -> str | None:
    best = CHECKPOINTS / f"checkpoint-{_json(METRICS / 'training.json')['best_step']}"
    name = "adapter_model.safetensors"
    same = (best / name).read_bytes() == (ADAPTER / name).read_bytes()
    return None if same else f"{ADAPTER / name}: not the weights of {best}"


def _training() -> str | None:
    metrics = _json(METRICS / "training.json")
    state = _json(CHECKPOINTS / f"checkpoint-{metrics['steps']}" / "trainer_state.json")
    history = {"best_step": state["best_global_step"], "validation_loss": state["best_metric"]}
    for key, value in history.items():
        if metrics[key] != value:
            return f"metrics/training.json: {key} is {metrics[key]}, but the history says {value}"
    curves = {
        "training.csv": ["step", "loss", "learning_rate", "grad_norm"],
        "validation.csv": ["step", "eval_loss"],
    }
    with TemporaryDirectory() as folder:
        for name, columns in curves.items():
            write_curve(Path(folder) / name, state["log_history"], columns)
            if (Path(folder) / name).read_bytes() != (METRICS / "curves" / name).read_bytes():
                return f"metrics/curves/{name}: not what the history says"
    return None


def _scores(stage: str) -> str | None:
    params = EvaluateParams.load()
    examples = read_jsonl(PREPARED / "test.jsonl")
    results = _json(METRICS / f"{stage}_results.json")
    rows = [
        (examples[index], row)
        for index, row in zip(results["selected_indices"], results["results"], strict=True)
    ]
    predictions = [predict(example, row["prediction"], row["truncated"], params) for example, row in rows]
    for prediction, row in zip(predictions, results["results"], strict=True):
        if (prediction.example.id, prediction.example.answer) != (row["id"], row["ground_truth"]):
            return f"metrics/{stage}_results.json: '{row['id']}' is not the test question at its index"
        likelihoods = row.get("log_likelihoods") or {row["prediction"]: 0.0}
        if row["prediction"] != max(likelihoods, key=likelihoods.__getitem__):
            return f"metrics/{stage}_results.json: '{row['id']}' is not answered with its likeliest choice"
    unquantized = None
    if any("unquantized" in row for _, row in rows):
        others = [(example, row["unquantized"]) for example, row in rows]
        unquantized = [
            predict(example, row["prediction"], row["truncated"], params) for example, row in others
        ]
    if summarise(predictions, params, unquantized) != _json(METRICS / f"{stage}.json"):
        return f"metrics/{stage}.json: not what the predictions score"
    return None


def _provenance_file() -> dict[str, Any]:
    return _json(ADAPTER / "provenance.json")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
