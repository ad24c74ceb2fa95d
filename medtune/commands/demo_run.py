"""What `medtune demo` says of the run behind an adapter: its examples with their verdicts, and what made it.

Nothing is said of a run that is not the adapter's own: examples are shown if `dvc.lock` names this adapter,
both files of results as they are here, and the parameters and code that are here.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.commands.demo_pair import Pair
from medtune.commands.revisions import RESULTS, WORKSPACE, read_predictions
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import file_sha256
from medtune.model.adapter import CONFIG, WEIGHTS
from medtune.model.params import ModelParams
from medtune.run.lock_file import LOCK_FILE, dvc_md5, entries, read_lock
from medtune.verify.uncommitted import uncommitted

BASE_RESULTS = "metrics/baseline_results.json"
ADAPTER = "models/adapter"
CHANGES = ("gained", "lost", "both right", "both wrong")
"""What tuning changed for a question: right is an exact answer."""


@dataclass(frozen=True)
class Answered:
    """A recorded answer; `verdict` is exact, partial or incorrect."""

    text: str
    verdict: str
    truncated: bool


@dataclass(frozen=True)
class Evaluated:
    """A test question, with what the untuned and the tuned model said to it when they were evaluated."""

    example: Example
    base: Answered
    tuned: Answered

    @property
    def asked(self) -> str:
        """What was asked, with the turns before it."""
        turns = [f"{turn.role}: {turn.content}" for turn in self.example.messages or []]
        return "\n\n".join([*turns, self.example.user_text])

    @property
    def is_plain(self) -> bool:
        """Whether it is a question alone, to which the page, asked it again, gives the recorded answer."""
        one = self.example
        return not (one.choices or one.context or one.messages or one.system)

    @property
    def change(self) -> str:
        """One of `CHANGES`."""
        before, after = (one.verdict == "exact" for one in (self.base, self.tuned))
        return {(0, 1): "gained", (1, 0): "lost", (1, 1): "both right", (0, 0): "both wrong"}[before, after]


def read_evaluated(adapter: Path) -> list[Evaluated]:
    """The evaluated examples of an adapter; a MedtuneError if those that are here are not its own."""
    examples = {given.example.id: given.example for given in read_predictions(WORKSPACE)}
    made = _made()
    for name in (WEIGHTS, CONFIG):
        if dvc_md5(adapter / name) != made.get(f"{ADAPTER}/{name}"):
            raise MedtuneError(
                f"{adapter}: not the adapter that was evaluated here: {LOCK_FILE} names another"
            )
    if not Path(BASE_RESULTS).is_file() or dvc_md5(Path(BASE_RESULTS)) != made.get(BASE_RESULTS):
        raise MedtuneError(f"{BASE_RESULTS}: not what {LOCK_FILE} names; run `dvc repro` or `dvc pull`")
    base, tuned = (_answered(path) for path in (BASE_RESULTS, RESULTS))
    if base.keys() != tuned.keys():
        raise MedtuneError(f"{BASE_RESULTS}: has other questions than {RESULTS}; run `dvc repro`")
    return [Evaluated(one, base[name], tuned[name]) for name, one in examples.items()]


def describe_run(adapter: Path, pair: Pair, doubt: str | None) -> list[tuple[str, str]]:
    """What the page says of what answers, as names and values; `doubt` is why it has no examples."""
    model, origin = ModelParams.load(), pair.origin
    revision = f", revision {model.revision}" if model.revision else ""
    in_bits = f", quantised ({origin.quantization})" if origin and origin.quantization else ""
    digest = f", sha256 {origin.base_sha256}" if origin else ""
    trained = "Prompt of its training" if origin else "Prompt (of params.yaml: the adapter names none)"
    options = pair.prompt.model_dump(exclude={"system"}, exclude_defaults=True)
    return [
        ("Adapter", f"{adapter}, sha256 {file_sha256(adapter / WEIGHTS)}"),
        ("Commit", _commit(doubt)),
        ("Base model", f"{model.source}{revision}{in_bits}{digest}"),
        (trained, pair.prompt.system or "(no system prompt)"),
        *([("Chat template", json.dumps(options, ensure_ascii=False))] if options else []),
        ("Answers", f"greedy, at most {pair.tuned.params.max_new_tokens} tokens, each question by itself"),
    ]


def _commit(doubt: str | None) -> str:
    """The commit that is here, as far as the adapter is its own."""
    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    if not commit:
        return "none: no commit is here"
    if doubt is not None:
        return f"unknown; not vouched for as that of {commit}, which is here: {doubt}"
    if changed := uncommitted():
        return f"{commit}, but not as committed: {', '.join(changed)}"
    return commit


def _made() -> dict[str, str]:
    """The hash of every output that `dvc.lock` names."""
    return {entry.path: entry.md5 for entry in entries(read_lock()) if entry.role == "outs"}


def _answered(path: str) -> dict[str, Answered]:
    rows: Sequence[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))["results"]
    return {row["id"]: Answered(row["prediction"], row["match_type"], row["truncated"]) for row in rows}
