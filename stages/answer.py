"""Ask the selected test questions, of the untuned model or of the adapter.

    python -m stages.answer base     the untuned model: metrics/answers-base.json
    python -m stages.answer tuned    the adapter: metrics/answers-tuned.json
    python -m stages.answer shots    the untuned model, shown examples first: metrics/answers-shots.json

All ask the same questions with the same system prompt, in float32: of a question's choices the likeliest is
picked, a question without choices is answered greedily. With a quantised base (compute.quantization) the
adapter is asked on it, as it was trained, and then on the base as it is. A question that the model's context
has no room for, with its longest answer, is not asked but listed. The third stage shows `answer.shots`
training examples of its kind before each question; with none it asks nothing, and its file has no answers.
Nothing is scored here. Params: model, prompt, compute, answer.
"""

import argparse
import time
from pathlib import Path

from medtune.answer.params import AnswerParams, Settings
from medtune.answer.shots import drawn_shots
from medtune.core import answers
from medtune.core.examples import drawn_indices
from medtune.core.outputs import record_timing
from medtune.model.params import ModelParams, PromptParams
from medtune.run.launch import run_launched
from medtune.run.params import ComputeParams
from medtune.run.stage import Run, Stage

TRAIN = Path("data/prepared/train.jsonl")
TEST = Path("data/prepared/test.jsonl")
ADAPTER = Path("models/adapter")
WEIGHTS = Path("models/adapter/adapter_model.safetensors")
CONFIG = Path("models/adapter/adapter_config.json")
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
    inputs=(TEST, WEIGHTS, CONFIG),
    outputs=(answers.TUNED,),
    launch="answer",
)
SHOTS = Stage(
    name="answer-shots",
    module="answer",
    sections=SECTIONS,
    inputs=(TEST, TRAIN),
    outputs=(answers.SHOTS,),
    launch="answer",
)
STAGES = {"base": BASE, "tuned": TUNED, "shots": SHOTS}


def main(run: Run) -> None:
    start = time.monotonic()
    if asks_nothing(run):
        run.confirm()
        answers.write_no_answers(answers.SHOTS)
        record_timing(run.stage.name, time.monotonic() - start)
        print(f"{run.stage.name}: nothing is asked, as answer.shots is 0")
        return
    settings = Settings(
        run.params(ModelParams), run.params(PromptParams), run.params(ComputeParams), run.params(AnswerParams)
    )
    params, examples = settings.answer, run.examples(TEST)
    asked = [examples[index] for index in drawn_indices(examples, params.seed, params.examples_per_kind)]
    shots = None
    if run.stage == SHOTS:
        kinds = {example.kind for example in asked}
        shots = drawn_shots(run.examples(TRAIN), kinds, params.seed, params.shots)

    # Imported here: torch takes seconds to load, and often there is nothing to ask.
    from medtune.answer.asking import ask

    ask(run, settings, asked, adapter=ADAPTER if run.stage == TUNED else None, shots=shots)


def asks_nothing(run: Run) -> bool:
    """Whether the stage has no question to ask."""
    return run.stage == SHOTS and run.params(AnswerParams).shots == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask the test questions.")
    parser.add_argument(
        "model", choices=STAGES, help="the untuned model, the adapter, or the former with shots"
    )
    run_launched(STAGES[parser.parse_args().model], main, alone=asks_nothing)
