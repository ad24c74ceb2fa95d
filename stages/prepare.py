"""Load the questions of the source, split them by group, and count what came out.

    python -m stages.prepare

Writes data/prepared/{train,validation,test}.jsonl with README.md (the data card) and ATTRIBUTION.md, and
metrics/data.json. Params: data.
"""

import time
from collections import Counter
from pathlib import Path

from medtune.core.errors import MedtuneError
from medtune.core.examples import write_jsonl
from medtune.core.outputs import record_timing, write_json, write_text
from medtune.data.card import data_card
from medtune.data.params import DataParams
from medtune.data.sources import load_source
from medtune.data.splits import overlaps, split_by_group
from medtune.run.stage import Run, Stage, run_stage

PREPARED = Path("data/prepared")
CARD = PREPARED / "README.md"
ATTRIBUTION = PREPARED / "ATTRIBUTION.md"
COUNTS = Path("metrics/data.json")

STAGE = Stage(
    name="prepare",
    module="prepare",
    sections=(DataParams,),
    inputs=(Path("data/raw"),),
    outputs=(
        PREPARED / "train.jsonl",
        PREPARED / "validation.jsonl",
        PREPARED / "test.jsonl",
        CARD,
        ATTRIBUTION,
        COUNTS,
    ),
)


def main(run: Run) -> None:
    start = time.monotonic()
    params = run.params(DataParams)

    source = load_source(params)
    splits = split_by_group(source.examples, params)
    shared = overlaps(splits)
    if any(shared.values()):
        raise MedtuneError(f"the splits share facts: {shared}")

    counts = {
        split: dict(sorted(Counter(example.kind for example in examples).items()))
        for split, examples in splits.items()
    }

    run.confirm()
    for split, examples in splits.items():
        write_jsonl(PREPARED / f"{split}.jsonl", examples)
    write_text(ATTRIBUTION, source.attribution + "\n")
    write_text(CARD, data_card(params, source.attribution, counts))
    write_json(COUNTS, {"examples": counts, "overlaps": shared})
    record_timing(STAGE.name, time.monotonic() - start)
    sizes = ", ".join(f"{len(examples)} {split}" for split, examples in splits.items())
    print(f"prepare: {sizes} questions in {PREPARED}/, described in {CARD}")


if __name__ == "__main__":
    run_stage(STAGE, main)
