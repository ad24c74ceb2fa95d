"""Score what the untuned model, the adapter and lookups in the training questions say, and compare them.

    python -m stages.evaluate

Reads data/prepared/{train,test}.jsonl and metrics/answers-{base,tuned,shots}.json; writes the headline
metrics (metrics/{evaluation,lookup}.json, metrics/kinds/), metrics/details.json, every prediction with its
verdict (metrics/evaluation_results.json, metrics/baseline_results.json), metrics/report.html for a browser,
metrics/accuracy.csv for `dvc plots` and the adapter's card. Takes seconds, without torch. Params: evaluate.
"""

import time
from pathlib import Path

from medtune.core import answers
from medtune.core.outputs import read_csv, read_json, record_timing, write_csv, write_json, write_text
from medtune.evaluate.card import model_card
from medtune.evaluate.lookups import look_up
from medtune.evaluate.models import LOOKUP
from medtune.evaluate.pairing import paired
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import judge, require_known_kinds
from medtune.evaluate.report import report, what_was_asked
from medtune.evaluate.results import results
from medtune.evaluate.summary import (
    accuracy_rows,
    describe,
    details,
    headline,
    lookup_headline,
    with_best_lookup,
    write_kinds,
)
from medtune.run.stage import Run, Stage, run_stage

TRAIN = Path("data/prepared/train.jsonl")
TEST = Path("data/prepared/test.jsonl")
ATTRIBUTION = Path("data/prepared/ATTRIBUTION.md")
SOURCES = Path("data/prepared/sources.json")
ADAPTER_CONFIG = Path("models/adapter/adapter_config.json")
TRAINING = Path("metrics/training.json")
TRAINING_DETAILS = Path("metrics/training_details.json")
LOSS = Path("metrics/curves/loss.csv")
CARD = Path("models/adapter/README.md")
HEADLINE = Path("metrics/evaluation.json")
LOOKUP_HEADLINE = Path("metrics/lookup.json")
KINDS = Path("metrics/kinds")
DETAILS = Path("metrics/details.json")
ACCURACY = Path("metrics/accuracy.csv")
REPORT = Path("metrics/report.html")
RESULTS = Path("metrics/evaluation_results.json")
BASE_RESULTS = Path("metrics/baseline_results.json")

STAGE = Stage(
    name="evaluate",
    module="evaluate",
    sections=(EvaluateParams,),
    inputs=(
        TRAIN,
        TEST,
        ATTRIBUTION,
        SOURCES,
        ADAPTER_CONFIG,
        TRAINING,
        TRAINING_DETAILS,
        LOSS,
        answers.BASE,
        answers.TUNED,
        answers.SHOTS,
    ),
    outputs=(HEADLINE, LOOKUP_HEADLINE, KINDS, DETAILS, ACCURACY, REPORT, RESULTS, BASE_RESULTS, CARD),
)


def main(run: Run) -> None:
    start = time.monotonic()
    params = run.params(EvaluateParams)
    base_answers, tuned_answers = answers.read_answers(answers.BASE), answers.read_answers(answers.TUNED)
    shots_answers = answers.read_answers(answers.SHOTS)
    examples = run.examples(TEST)
    require_known_kinds(examples, params)
    indices = paired(examples, TEST, base_answers, tuned_answers, shots_answers)

    selected = [examples[index] for index in indices]
    looked = look_up(selected, run.examples(TRAIN), params)
    said = {
        "base": base_answers.given,
        "tuned": tuned_answers.given,
        "shots": shots_answers.given,
        **looked.answers,
    }
    predictions = with_best_lookup({model: judge(selected, given, params) for model, given in said.items()})
    unquantized = judge(selected, tuned_answers.unquantized or {}, params)
    found = details(predictions, looked.relatives, unquantized, params, too_long=len(tuned_answers.too_long))
    training = read_json(TRAINING) | read_json(TRAINING_DETAILS)
    card = model_card(
        tuned_answers.record,
        read_json(ADAPTER_CONFIG),
        training,
        found,
        params.near_relative,
        ATTRIBUTION.read_text(encoding="utf-8"),
        read_json(SOURCES),
    )
    page = report(
        {model: some for model, some in predictions.items() if model != LOOKUP},
        looked.relatives,
        found,
        read_csv(LOSS),
        what_was_asked(tuned_answers.record, training["settings"], params),
        params.near_relative,
    )

    run.confirm()
    write_json(HEADLINE, headline(found))
    write_json(LOOKUP_HEADLINE, lookup_headline(found))
    write_kinds(KINDS, found)
    write_json(DETAILS, found)
    write_csv(ACCURACY, ["kind", "model", "accuracy", "low", "high"], accuracy_rows(found))
    write_json(BASE_RESULTS, results(predictions["base"], indices))
    write_json(RESULTS, results(predictions["tuned"], indices, looked.relatives, unquantized))
    write_text(CARD, card)
    write_text(REPORT, page)
    record_timing(STAGE.name, time.monotonic() - start)
    print(describe(found))
    print(f"look: {REPORT}; compare with the last commit: medtune diff HEAD; ask: medtune ask QUESTION")


if __name__ == "__main__":
    run_stage(STAGE, main)
