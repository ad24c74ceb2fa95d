"""Read the questions of the sources, clean and split them by group, and say what came out.

    python -m stages.prepare

Writes data/prepared/{train,validation,test}.jsonl with README.md (the data card), ATTRIBUTION.md,
sources.json (where from, for the model card) and left_out.csv (rows that became no example, and why), and
metrics/data.json. Params: data.
"""

import time
from pathlib import Path

from medtune.core.examples import write_jsonl
from medtune.core.outputs import record_timing, replacing, write_json, write_text
from medtune.data.card import attribution, data_card, described_sources
from medtune.data.pace import with_pace
from medtune.data.params import DataParams
from medtune.data.preparation import prepare
from medtune.data.tally import Tally
from medtune.data.tracking import PIPELINE_FILE, named_files, require_declared, warnings
from medtune.run.stage import Run, Stage, run_stage

PREPARED = Path("data/prepared")
CARD = PREPARED / "README.md"
ATTRIBUTION = PREPARED / "ATTRIBUTION.md"
SOURCES = PREPARED / "sources.json"
LEFT_OUT = PREPARED / "left_out.csv"
COUNTS = Path("metrics/data.json")

STAGE = Stage(
    name="prepare",
    module="prepare",
    sections=(DataParams,),
    inputs=(),
    outputs=(
        PREPARED / "train.jsonl",
        PREPARED / "validation.jsonl",
        PREPARED / "test.jsonl",
        LEFT_OUT,
        CARD,
        ATTRIBUTION,
        SOURCES,
        COUNTS,
    ),
    named_inputs=lambda content: named_files(DataParams.of(content)),
)


def main(run: Run) -> None:
    start = time.monotonic()
    params = run.params(DataParams)
    # `medtune verify` runs this stage on its inputs alone, and looks at dvc.yaml itself.
    if PIPELINE_FILE.is_file():
        require_declared(params)

    prepared = prepare(params)
    for note in prepared.notes:
        print(f"prepare: {note}")

    run.confirm()
    tallies = {split: Tally() for split in prepared.splits}
    for split, examples in prepared.splits.items():
        shown = with_pace(examples, f"writing {split}", len(examples))
        write_jsonl(PREPARED / f"{split}.jsonl", tallies[split].of(shown))
    with replacing(LEFT_OUT) as file:
        prepared.rejects.write(file)
    write_text(ATTRIBUTION, attribution(params) + "\n")
    write_json(SOURCES, described_sources(params))
    report = prepared.report()
    write_text(CARD, data_card(params, attribution(params), report, tallies))
    write_json(COUNTS, report)
    record_timing(STAGE.name, time.monotonic() - start)
    sizes = ", ".join(f"{len(examples)} {split}" for split, examples in prepared.splits.items())
    print(f"prepare: {sizes} questions in {PREPARED}/, described in {CARD}")
    if left_out := len(prepared.rejects.rows):
        print(f"prepare: left out {left_out} rows, listed in {LEFT_OUT}")
    for warning in warnings(named_files(params)):
        print(f"prepare: {warning}")


if __name__ == "__main__":
    run_stage(STAGE, main)
