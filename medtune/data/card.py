"""The data card: what the questions are, where they come from, under which licence."""

from collections.abc import Mapping

from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.data.params import DataParams


def data_card(params: DataParams, attribution: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Markdown for `data/prepared/README.md`; `counts` holds the examples by split and kind."""
    kinds = list(params.kinds)
    rows = [
        "| " + " | ".join([split, *(str(by_kind.get(kind, 0)) for kind in kinds)]) + " |"
        for split, by_kind in counts.items()
    ]
    table = "\n".join(["| split | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds), *rows])
    return (
        "# Medical questions and answers\n\n"
        f"Source: `{params.source}`, split by group with seed {params.seed}.\n\n"
        f"{attribution}\n\n{table}\n\n{NOT_MEDICAL_ADVICE}\n"
    )
