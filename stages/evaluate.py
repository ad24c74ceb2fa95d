"""Score what the untuned model and the adapter said, and compare the two.

    python -m stages.evaluate

Reads data/prepared/test.jsonl and metrics/answers-{base,tuned,shots}.json; writes the headline metrics
(metrics/evaluation.json, metrics/kinds/), metrics/details.json, every prediction with its verdict
(metrics/evaluation_results.json, metrics/baseline_results.json), metrics/accuracy.csv for `dvc plots` and the
adapter's card. Takes seconds and needs no torch. Params: evaluate.
"""

import time
from pathlib import Path

from medtune.core import answers
from medtune.core.outputs import read_json, record_timing, write_csv, write_json, write_text
from medtune.evaluate.card import model_card
from medtune.evaluate.pairing import paired
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.summary import accuracy_rows, describe, details, headline, judge, results, write_kinds
from medtune.run.stage import Run, Stage, run_stage

TEST = Path("data/prepared/test.jsonl")
ATTRIBUTION = Path("data/prepared/ATTRIBUTION.md")
ADAPTER_CONFIG = Path("models/adapter/adapter_config.json")
TRAINING = Path("metrics/training.json")
TRAINING_DETAILS = Path("metrics/training_details.json")
CARD = Path("models/adapter/README.md")
HEADLINE = Path("metrics/evaluation.json")
KINDS = Path("metrics/kinds")
DETAILS = Path("metrics/details.json")
ACCURACY = Path("metrics/accuracy.csv")
RESULTS = Path("metrics/evaluation_results.json")
BASE_RESULTS = Path("metrics/baseline_results.json")

STAGE = Stage(
    name="evaluate",
    module="evaluate",
    sections=(EvaluateParams,),
    inputs=(
        TEST,
        ATTRIBUTION,
        ADAPTER_CONFIG,
        TRAINING,
        TRAINING_DETAILS,
        answers.BASE,
        answers.TUNED,
        answers.SHOTS,
    ),
    outputs=(HEADLINE, KINDS, DETAILS, ACCURACY, RESULTS, BASE_RESULTS, CARD),
)


def main(run: Run) -> None:
    start = time.monotonic()
    params = run.params(EvaluateParams)
    base_answers, tuned_answers = answers.read_answers(answers.BASE), answers.read_answers(answers.TUNED)
    examples = run.examples(TEST)
    indices = paired(examples, TEST, base_answers, tuned_answers, answers.read_answers(answers.SHOTS))

    selected = [examples[index] for index in indices]
    base = judge(selected, base_answers.given, params)
    tuned = judge(selected, tuned_answers.given, params)
    unquantized = judge(selected, tuned_answers.unquantized, params) if tuned_answers.unquantized else None
    figures = headline(base, tuned, params)
    too_long = len(tuned_answers.too_long)
    by_kind = details(base, tuned, unquantized, params) | {"too_long": too_long}
    card = model_card(
        tuned_answers.record,
        read_json(ADAPTER_CONFIG),
        read_json(TRAINING) | read_json(TRAINING_DETAILS),
        figures,
        ATTRIBUTION.read_text(encoding="utf-8"),
    )

    run.confirm()
    write_json(HEADLINE, figures)
    write_kinds(KINDS, by_kind)
    write_json(DETAILS, by_kind)
    write_csv(ACCURACY, ["kind", "model", "accuracy", "low", "high"], accuracy_rows(by_kind))
    write_json(BASE_RESULTS, results(base, indices))
    write_json(RESULTS, results(tuned, indices, unquantized))
    write_text(CARD, card)
    record_timing(STAGE.name, time.monotonic() - start)
    print(describe(figures, by_kind))
    if too_long:
        print(f"{too_long} questions left out: with an answer they are longer than the model's context")
    print("compare with the last commit: dvc metrics diff; look: dvc plots show; ask: medtune ask QUESTION")


if __name__ == "__main__":
    run_stage(STAGE, main)
