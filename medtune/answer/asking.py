"""Asking the selected test questions, and writing down what was said."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medtune.answer.answerer import Answerer
from medtune.answer.batches import AnswerLog
from medtune.answer.params import Settings
from medtune.answer.shots import Shots, shots_record
from medtune.core import answers
from medtune.core.examples import Example
from medtune.core.outputs import record_environment, record_timing
from medtune.model.base import describe_base
from medtune.run import processes
from medtune.run.device import describe_environment, device_memory_peak, enough_memory
from medtune.run.params import MEMORY_KNOBS
from medtune.run.progress import kept_progress
from medtune.run.stage import Run


@enough_memory(MEMORY_KNOBS["answer"])
def ask(
    run: Run,
    settings: Settings,
    examples: Sequence[Example],
    *,
    adapter: Path | None = None,
    shots: Shots | None = None,
) -> None:
    """Ask the base model, or the adapter on it, and write the answers as the output of the stage.

    Examples that exceed the context are left out: those that do so without shots, so that with them the
    questions are the same.
    """
    stage = run.stage
    answerer = Answerer.build(settings, adapter)
    selected, too_long = answerer.fitting(examples)
    answerer = replace(answerer, shots=shots or {})
    device, dtype = answerer.model.device, answerer.model.dtype
    record = run.record() | {"base_model": describe_base(settings.model)} | shots_record(shots)
    quantised = settings.compute.quantization is not None
    environment = describe_environment(device, dtype, quantised=quantised)
    kept = kept_progress(stage.name, record | {"environment": environment}, stage.outputs)
    with processes.entered_by_main(kept) as progress:
        log = AnswerLog(progress / f"answers-{processes.rank()}.jsonl")
        given = answerer.answer(selected, progress=stage.name, log=log)
        unquantized = None
        if adapter and quantised and settings.answer.unquantized:
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
        f"{stage.name}: {len(given)} questions answered, {cut} cut off at {settings.answer.max_new_tokens} "
        f"tokens{left_out}, in {stage.outputs[0]}"
    )
