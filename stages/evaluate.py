"""Ask the selected test questions and score the answers.

    python -m stages.evaluate              the adapter: metrics/evaluation.json, evaluation_results.json
    python -m stages.evaluate --baseline   the untuned model: metrics/baseline.json, baseline_results.json

Both ask the same questions with the same system prompt, in float32: of a question's choices the likeliest is
picked, a question without choices is answered greedily. With a quantised base
(compute.quantization) the adapter is asked on it, as it was trained, and then on the base as it is.
Params: model, prompt, compute, evaluate.
"""

import argparse
import gc
from functools import partial
from pathlib import Path

from medtune.answer.answerer import Answerer
from medtune.answer.batches import AnswerLog, AnswerText
from medtune.core.examples import Example, read_jsonl
from medtune.core.outputs import record_timing, write_json
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.summary import Prediction, describe, detail, predict, select_indices, summarise
from medtune.model.files import locate
from medtune.model.params import ModelParams, PromptParams
from medtune.run import processes
from medtune.run.device import device_memory_peak, enough_memory
from medtune.run.launch import Launch, run_launched
from medtune.run.params import ComputeParams
from medtune.run.progress import kept_progress
from medtune.run.record import describe_run

TEST = Path("data/prepared/test.jsonl")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics")


@enough_memory("lower evaluate.batch_size or evaluate.max_new_tokens, or set compute.quantization to nf4")
def main(stage: str) -> None:
    params = EvaluateParams.load()
    examples = read_jsonl(TEST)
    indices = select_indices(examples, params)
    selected = [examples[index] for index in indices]

    adapter = ADAPTER if stage == "evaluation" else None
    answerer = Answerer.load(adapter)
    device = answerer.model.device
    model_params, compute = ModelParams.load(), ComputeParams.load()
    identity = describe_run(
        locate(model_params),
        [TEST, *(sorted(ADAPTER.iterdir()) if adapter else [])],
        [model_params, PromptParams.load(), compute, params],
        device,
        answerer.model.dtype,
    )
    with processes.entered_by_main(kept_progress(stage, identity)) as progress:
        log = AnswerLog(progress / f"answers-{processes.rank()}.jsonl")
        answers = answerer.answer(selected, progress=stage, log=log)
        predictions = scored(selected, answers, params)
        unquantized = None
        if adapter and compute.quantization and params.unquantized:
            # Two models at once may be one too many for the device; quantised weights refer to themselves.
            del answerer
            gc.collect()
            other = Answerer.load(adapter, quantized=False)
            other_log = AnswerLog(progress / f"unquantized-{processes.rank()}.jsonl")
            others = other.answer(selected, progress="unquantized", log=other_log)
            unquantized = scored(selected, others, params)
        if processes.is_main():
            summary = summarise(predictions, params, unquantized)
            print(describe(summary))
            write_json(METRICS / f"{stage}.json", summary)
            write_json(METRICS / f"{stage}_results.json", detail(predictions, indices, unquantized))
            tokens = sum(answer.tokens for answer in answers)
            record_timing(stage, log.seconds, tokens, device_memory_peak(device))


def scored(examples: list[Example], answers: list[AnswerText], params: EvaluateParams) -> list[Prediction]:
    return [
        predict(example, answer.text, answer.truncated, params, answer.log_likelihoods)
        for example, answer in zip(examples, answers, strict=True)
    ]


def launch() -> Launch:
    return Launch.load(EvaluateParams.load().launch, "evaluate.launch")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Score the adapter, or the untuned model.")
    parser.add_argument("--baseline", action="store_true", help="score the untuned model")
    stage = "baseline" if parser.parse_args().baseline else "evaluation"
    run_launched(stage, partial(main, stage), launch)
