"""Ask the selected test questions, of the untuned model or of the adapter.

    python -m stages.answer base     the untuned model: metrics/answers-base.json
    python -m stages.answer tuned    the adapter: metrics/answers-tuned.json

Both ask the same questions with the same system prompt, in float32: of a question's choices the likeliest is
picked, a question without choices is answered greedily. With a quantised base (compute.quantization) the
adapter is asked on it, as it was trained, and then on the base as it is. A question that the model's context
has no room for, with its longest answer, is not asked but listed. Nothing is scored here.
Params: model, prompt, compute, answer.
"""

import argparse
import gc
from pathlib import Path

from medtune.answer.answerer import Answerer, Settings
from medtune.answer.batches import AnswerLog
from medtune.answer.params import AnswerParams
from medtune.core import answers
from medtune.core.examples import drawn_indices
from medtune.core.outputs import record_environment, record_timing
from medtune.model.adapter import CONFIG, WEIGHTS
from medtune.model.base import describe_base
from medtune.model.params import ModelParams, PromptParams
from medtune.run import processes
from medtune.run.device import describe_environment, device_memory_peak, enough_memory
from medtune.run.launch import run_launched
from medtune.run.params import MEMORY_KNOBS, ComputeParams
from medtune.run.progress import kept_progress
from medtune.run.stage import Run, Stage

TEST = Path("data/prepared/test.jsonl")
ADAPTER = Path("models/adapter")
SECTIONS = (ModelParams, PromptParams, ComputeParams, AnswerParams)

BASE = Stage(
    name="answer-base",
    module="answer",
    sections=SECTIONS,
    inputs=(TEST,),
    outputs=(answers.BASE,),
    launch="answer",
)
TUNED = Stage(
    name="answer-tuned",
    module="answer",
    sections=SECTIONS,
    inputs=(TEST, ADAPTER / WEIGHTS, ADAPTER / CONFIG),
    outputs=(answers.TUNED,),
    launch="answer",
)


@enough_memory(MEMORY_KNOBS["answer"])
def main(run: Run) -> None:
    settings = Settings(
        run.params(ModelParams), run.params(PromptParams), run.params(ComputeParams), run.params(AnswerParams)
    )
    params, stage = settings.answer, run.stage
    adapter = ADAPTER if stage == TUNED else None
    examples = run.examples(TEST)
    drawn = [examples[index] for index in drawn_indices(examples, params.seed, params.examples_per_kind)]

    answerer = Answerer.build(settings, adapter)
    selected, too_long = answerer.fitting(drawn)
    device, dtype = answerer.model.device, answerer.model.dtype
    record = run.record() | {"base_model": describe_base(settings.model)}
    quantised = settings.compute.quantization is not None
    environment = describe_environment(device, dtype, quantised=quantised)
    kept = kept_progress(stage.name, record | {"environment": environment}, stage.outputs)
    with processes.entered_by_main(kept) as progress:
        log = AnswerLog(progress / f"answers-{processes.rank()}.jsonl")
        given = answerer.answer(selected, progress=stage.name, log=log)
        unquantized = None
        if adapter and quantised and params.unquantized:
            # Two models at once may be one too many for the device; quantised weights refer to themselves.
            del answerer
            gc.collect()
            other = Answerer.build(settings, adapter, quantized=False)
            other_log = AnswerLog(progress / f"unquantized-{processes.rank()}.jsonl")
            unquantized = other.answer(selected, progress="unquantized", log=other_log)
        if not processes.is_main():
            return

        run.confirm()
        answers.write_answers(
            stage.outputs[0],
            answers.without_code(record),
            [example.id for example in selected],
            given,
            unquantized,
            too_long=[example.id for example in too_long],
        )
    record_environment(stage.name, environment)
    tokens = sum(answer.tokens for answer in given)
    record_timing(stage.name, log.seconds, tokens, device_memory_peak(device))
    cut = sum(answer.truncated for answer in given)
    left_out = f", {len(too_long)} left out as longer than the model's context" if too_long else ""
    print(
        f"{stage.name}: {len(given)} questions answered, {cut} cut off at {params.max_new_tokens} tokens"
        f"{left_out}, in {stage.outputs[0]}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask the test questions.")
    parser.add_argument("model", choices=["base", "tuned"], help="the untuned model, or the adapter")
    run_launched(BASE if parser.parse_args().model == "base" else TUNED, main)
