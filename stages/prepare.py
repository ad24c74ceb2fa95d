"""Load the questions of the source, split them by group, and count what came out.

    python -m stages.prepare

Writes data/prepared/{train,validation,test}.jsonl with README.md (the data card) and ATTRIBUTION.md, and
metrics/data.json.
Params: data, model (its tokenizer counts the tokens).
"""

import time
from collections import Counter
from pathlib import Path

from medtune.core.errors import MedtuneError
from medtune.core.examples import write_jsonl
from medtune.core.outputs import record_timing, write_json
from medtune.data.params import DataParams
from medtune.data.sources import load_source
from medtune.data.splits import overlaps, split_by_group
from medtune.evaluate.cards import data_card
from medtune.model.files import count_tokens, load_vocabulary, locate
from medtune.model.params import ModelParams
from medtune.run.workspace import run_stage

PREPARED = Path("data/prepared")


def main() -> None:
    start = time.monotonic()
    params = DataParams.load()
    vocabulary = load_vocabulary(locate(ModelParams.load()))

    source = load_source(params)
    splits = split_by_group(source.examples, params)
    shared = overlaps(splits)
    if any(shared.values()):
        raise MedtuneError(f"the splits share facts: {shared}")

    counts = {
        split: dict(sorted(Counter(example.kind for example in examples).items()))
        for split, examples in splits.items()
    }
    tokens = {
        split: {
            "questions": count_tokens(vocabulary, (example.user_text for example in examples)),
            "answers": count_tokens(vocabulary, (example.answer for example in examples)),
        }
        for split, examples in splits.items()
    }

    for split, examples in splits.items():
        write_jsonl(PREPARED / f"{split}.jsonl", examples)
    (PREPARED / "ATTRIBUTION.md").write_text(source.attribution + "\n", encoding="utf-8")
    (PREPARED / "README.md").write_text(data_card(params, source.attribution, counts), encoding="utf-8")
    write_json(Path("metrics/data.json"), {"examples": counts, "tokens": tokens, "overlaps": shared})
    record_timing("prepare", time.monotonic() - start)


if __name__ == "__main__":
    run_stage("prepare", main)
