"""The report, `metrics/report.html`: an evaluation on one page, which needs no network and no other file.

Equal arguments give equal bytes. Whatever comes from questions and answers stands in the page as text: the
template escapes it, the data of charts and table cannot end their element, and the page's own policy
(Content-Security-Policy) lets no script run but the three whose hashes it names, and nothing be fetched.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.evaluate.lookups import Relative
from medtune.evaluate.models import BASE, OPPONENTS, TUNED
from medtune.evaluate.page import rows
from medtune.evaluate.page.bundles import data_tables, inline, vega
from medtune.evaluate.page.parts import Chart
from medtune.evaluate.page.sections import sections
from medtune.evaluate.page.words import (
    by_kind_sentence,
    chip,
    difference,
    interval,
    title_sentence,
    verdict_sentence,
    with_interval,
)
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import Prediction

ADAPTER = "models/adapter/adapter_model.safetensors"
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Verdict:
    """What the comparison with one other has shown, for a person to read."""

    title: str
    tone: str
    word: str
    difference: str
    interval: str
    sentence: str
    kinds: str


def report(
    predictions: Mapping[str, Sequence[Prediction]],
    relatives: Sequence[Relative | None],
    details: Mapping[str, Any],
    loss: Sequence[Mapping[str, str]],
    record: Mapping[str, Any],
    near: float,
) -> str:
    """The page as HTML.

    `predictions` are by model: base and tuned, perhaps shots, then the lookups, which may lack some examples;
    `relatives` has for each its nearest training question, a near one from similarity `near` on.
    `details` and `loss` are the contents of metrics/details.json and metrics/curves/loss.csv, `record` is
    what `what_was_asked` gives.
    """
    found = list(sections(predictions, details, loss, record, near))
    charts = [part for section in found for part in section.parts if isinstance(part, Chart)]
    scripts = [vega(), data_tables(), inline(_file("report.js"))]
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        newline_sequence="\n",
    )
    return environment.from_string(_file("report.html.jinja")).render(
        policy=_policy(scripts),
        style=_file("report.css"),
        scripts=scripts,
        notice=NOT_MEDICAL_ADVICE.split("**"),
        base_model=record.get("base_model", {}).get("source"),
        adapter=record.get("inputs", {}).get(ADAPTER),
        questions=f"{len(predictions['tuned']):,}",
        exact=[(model, with_interval("accuracy", details["all"][model])) for model in (TUNED, BASE)],
        title=title_sentence(details.get("comparisons", {})),
        verdicts=[_verdict(*item) for item in details.get("comparisons", {}).items() if item[1].get("all")],
        sections=found,
        charts=_data({f"chart-{number}": chart.spec for number, chart in enumerate(charts, start=1)}),
        examples=_data(rows.examples(predictions, relatives, near)),
    )


def what_was_asked(
    answers: Mapping[str, Any], finetune: Mapping[str, Any], params: EvaluateParams
) -> dict[str, Any]:
    """A record for the page: that of the adapter's answers, with the settings of training and evaluation.

    models/record.json, with the digests of code and training data, is not read: other code that trains the
    same adapter leaves the same page.
    """
    settings = {"finetune": dict(finetune), params.name: params.model_dump()}
    return {**answers, "parameters": {**answers["parameters"], **settings}}


def _verdict(other: str, comparisons: Mapping[str, Any]) -> Verdict:
    overall = comparisons["all"]["accuracy"]
    name = OPPONENTS[other]
    word = chip(overall["verdict"])
    return Verdict(
        title=f"Against {name}",
        tone=word.tone,
        word=word.text,
        difference=difference("accuracy", overall),
        interval=interval("accuracy", overall),
        sentence=verdict_sentence(overall, name),
        kinds=by_kind_sentence(comparisons),
    )


def _policy(scripts: Sequence[str]) -> str:
    """What the browser lets the page do: run these scripts, and nothing with a network."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(content: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _file(name: str) -> str:
    return files("medtune.evaluate.page").joinpath(name).read_text(encoding="utf-8")
