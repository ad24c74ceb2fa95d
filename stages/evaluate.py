"""Ask the selected test questions and score the answers.

    python -m stages.evaluate              the adapter: metrics/evaluation.json, evaluation_results.json
    python -m stages.evaluate --baseline   the untuned model: metrics/baseline.json, baseline_results.json

Both ask the same questions with the same system prompt, greedily and in float32.
Params: model, prompt, compute, evaluate.
"""

import argparse
from functools import partial
from pathlib import Path

from medtune.answer_log import AnswerLog
from medtune.answering import Answerer
from medtune.evaluation import describe, detail, predict, select_indices, summarise
from medtune.examples import read_jsonl
from medtune.model_files import locate
from medtune.outputs import record_timing, write_json
from medtune.params import ComputeParams, EvaluateParams, ModelParams, PromptParams
from medtune.progress import kept_progress
from medtune.provenance import describe_run
from medtune.workspace import run_stage

TEST = Path("data/prepared/test.jsonl")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics")


def main(stage: str) -> None:
    params = EvaluateParams.load()
    examples = read_jsonl(TEST)
    indices = select_indices(examples, params)
    selected = [examples[index] for index in indices]

    answerer = Answerer.load(adapter=ADAPTER if stage == "evaluation" else None)
    model_params = ModelParams.load()
    identity = describe_run(
        locate(model_params),
        [TEST, *(sorted(ADAPTER.iterdir()) if stage == "evaluation" else [])],
        [model_params, PromptParams.load(), ComputeParams.load(), params],
        answerer.model.device,
        answerer.model.dtype,
    )
    with kept_progress(stage, identity) as progress:
        log = AnswerLog(progress / "answers.jsonl")
        answers = answerer.answer(selected, progress=stage, log=log)
        predictions = [
            predict(example, answer.text, answer.truncated, params)
            for example, answer in zip(selected, answers, strict=True)
        ]
        summary = summarise(predictions, params)
        print(describe(summary))
        write_json(METRICS / f"{stage}.json", summary)
        write_json(METRICS / f"{stage}_results.json", detail(predictions, indices))
    record_timing(stage, log.seconds, sum(answer.tokens for answer in answers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Score the adapter, or the untuned model.")
    parser.add_argument("--baseline", action="store_true", help="score the untuned model")
    stage = "baseline" if parser.parse_args().baseline else "evaluation"
    run_stage(stage, partial(main, stage))
