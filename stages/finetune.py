"""Train a LoRA adapter on the prepared questions.

    python -m stages.finetune

Reads data/prepared/{train,validation}.jsonl; writes models/adapter/ (but for its card), models/checkpoints/,
models/record.json, metrics/training.json, metrics/training_details.json and metrics/curves/, the curves while
it trains. Params: model, prompt, compute, finetune.
"""

from functools import partial
from pathlib import Path

import torch

from medtune.core.hashing import file_sha256
from medtune.core.outputs import record_environment, record_timing, write_json
from medtune.model.adapter import ADAPTER_FILES, WEIGHTS, attach_lora, publish_adapter
from medtune.model.base import base_folder, describe_base, load_model, load_tokenizer, require_context
from medtune.model.chat import ChatEncoder
from medtune.model.origin import Origin
from medtune.model.params import ModelParams, PromptParams
from medtune.run import processes
from medtune.run.device import describe_environment, device_memory_peak, enough_memory, frozen_dtype, set_up
from medtune.run.launch import run_launched
from medtune.run.params import MEMORY_KNOBS, ComputeParams
from medtune.run.progress import kept_progress
from medtune.run.stage import Run, Stage
from medtune.train.checkpoints import Checkpoints
from medtune.train.encoding import kept_examples
from medtune.train.params import FinetuneParams
from medtune.train.reporting import chosen_trackers, reported
from medtune.train.trainer import AnswerTrainer, train, training_details, training_metrics

TRAIN = Path("data/prepared/train.jsonl")
VALIDATION = Path("data/prepared/validation.jsonl")
ADAPTER = Path("models/adapter")
CHECKPOINTS = Path("models/checkpoints")
RECORD = Path("models/record.json")
METRICS = Path("metrics/training.json")
DETAILS = Path("metrics/training_details.json")
CURVES = Path("metrics/curves")

STAGE = Stage(
    name="finetune",
    module="finetune",
    sections=(ModelParams, PromptParams, ComputeParams, FinetuneParams),
    inputs=(TRAIN, VALIDATION),
    outputs=(
        *(ADAPTER / name for name in ADAPTER_FILES),
        CHECKPOINTS,
        RECORD,
        METRICS,
        DETAILS,
        CURVES / "loss.csv",
        CURVES / "learning_rate.csv",
        CURVES / "gradient_norm.csv",
    ),
    launch="finetune",
)


@enough_memory(MEMORY_KNOBS["finetune"])
def main(run: Run) -> None:
    model_params, prompt = run.params(ModelParams), run.params(PromptParams)
    compute, params = run.params(ComputeParams), run.params(FinetuneParams)
    trackers = chosen_trackers()
    device = set_up(compute, params.seed)
    dtype = frozen_dtype(params.precision, device)

    tokenizer = load_tokenizer(base_folder(model_params))
    encoder = ChatEncoder(tokenizer, prompt)
    record = run.record() | {"base_model": describe_base(model_params)}
    environment = describe_environment(device, dtype, quantised=compute.quantization is not None)
    kept = kept_progress(STAGE.name, record | {"environment": environment}, STAGE.outputs)
    with processes.entered_by_main(kept) as progress:
        training, validation = (
            kept_examples(partial(run.examples, file), encoder, params, file, progress)
            for file in (TRAIN, VALIDATION)
        )
        # Sharding brings each process its part; the whole might not fit.
        home = torch.device("cpu") if processes.shard_the_model() and not compute.quantization else device
        base = load_model(model_params, compute, dtype, home)
        require_context(base.config, max(training.longest, validation.longest))
        model = attach_lora(base, params.lora, model_params)
        checkpoints = Checkpoints(progress, params.keep_checkpoints)
        trainer = AnswerTrainer(
            model, tokenizer, training.rows, validation.rows, params, checkpoints, device, CURVES
        )
        with reported(trainer, trackers, record):
            result = train(trainer)
        if not processes.is_main():
            return

        run.confirm()
        checkpoints.publish(result.steps, CHECKPOINTS)
        origin = Origin(record["base_model"]["sha256"], compute.quantization, prompt)
        publish_adapter(checkpoints.path(result.best_step), encoder, ADAPTER, origin)
        write_json(RECORD, record | {"adapter": file_sha256(ADAPTER / WEIGHTS)})
        write_json(METRICS, training_metrics(result))
        write_json(DETAILS, training_details(result, model, training, validation, params))
    record_environment(STAGE.name, environment | {"shares_prefix": trainer.shares_prefix})
    record_timing(STAGE.name, result.seconds, result.tokens, device_memory_peak(device))
    print(
        f"finetune: {result.steps} steps, the best validation loss {result.validation_loss:.4f} at step "
        f"{result.best_step}, kept as {ADAPTER}/\n"
        "while it trains and afterwards: dvc plots show; what went in: models/record.json"
    )


if __name__ == "__main__":
    run_launched(STAGE, main)
