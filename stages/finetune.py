"""Train a LoRA adapter on the prepared questions.

    python -m stages.finetune

Reads data/prepared/{train,validation}.jsonl and ATTRIBUTION.md; writes models/adapter/, models/checkpoints/,
metrics/training.json and metrics/curves/. Params: model, prompt, compute, finetune.
"""

import shutil
from pathlib import Path

import torch

from medtune.core.examples import read_jsonl
from medtune.core.outputs import record_timing, write_curve, write_json
from medtune.evaluate.cards import model_card
from medtune.model.adapter import attach_lora, copy_adapter
from medtune.model.base import base_folder, load_model, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.files import locate
from medtune.model.params import ModelParams, PromptParams
from medtune.run import processes
from medtune.run.device import device_memory_peak, enough_memory, frozen_dtype, set_up
from medtune.run.launch import Launch, run_launched
from medtune.run.params import ComputeParams
from medtune.run.progress import kept_progress
from medtune.run.record import describe_run
from medtune.train.batching import encode_examples
from medtune.train.checkpoints import Checkpoints
from medtune.train.params import FinetuneParams
from medtune.train.trainer import AnswerTrainer, train, training_metrics

TRAIN = Path("data/prepared/train.jsonl")
VALIDATION = Path("data/prepared/validation.jsonl")
ATTRIBUTION = Path("data/prepared/ATTRIBUTION.md")
ADAPTER = Path("models/adapter")
CHECKPOINTS = Path("models/checkpoints")
CURVES = Path("metrics/curves")
KNOBS = (
    "lower finetune.tokens_per_pass or finetune.max_length, set finetune.gradient_checkpointing to true, "
    "or compute.quantization to nf4"
)


@enough_memory(KNOBS)
def main() -> None:
    model_params, prompt = ModelParams.load(), PromptParams.load()
    compute, params = ComputeParams.load(), FinetuneParams.load()
    device = set_up(compute, params.seed)
    dtype = frozen_dtype(params.precision, device)

    tokenizer = load_tokenizer(base_folder(model_params))
    encoder = ChatEncoder(tokenizer, prompt)
    training = encode_examples(read_jsonl(TRAIN), encoder, params, TRAIN)
    validation = encode_examples(read_jsonl(VALIDATION), encoder, params, VALIDATION)

    # Sharding brings each process its part; the whole might not fit.
    home = torch.device("cpu") if processes.shard_the_model() and not compute.quantization else device
    base = load_model(model_params, compute, dtype, home)
    model = attach_lora(base, params.lora, model_params)

    provenance = describe_run(
        locate(model_params),
        [TRAIN, VALIDATION],
        [model_params, prompt, compute, params],
        device,
        dtype,
    )
    identity = provenance | {"launch": launch().settings}
    with processes.entered_by_main(kept_progress("finetune", identity)) as progress:
        checkpoints = Checkpoints(progress, params.keep_checkpoints)
        result = train(
            AnswerTrainer(model, tokenizer, training.rows, validation.rows, params, checkpoints, device)
        )
        if not processes.is_main():
            return

        for folder in (ADAPTER, CHECKPOINTS):
            shutil.rmtree(folder, ignore_errors=True)
        checkpoints.publish(result.steps, CHECKPOINTS)
        copy_adapter(checkpoints.path(result.best_step), ADAPTER)
        tokenizer.save_pretrained(ADAPTER)
        metrics = training_metrics(result, model, training, validation)
        write_json(ADAPTER / "provenance.json", provenance)
        card = model_card(model_params, compute, params, metrics, ATTRIBUTION.read_text(encoding="utf-8"))
        (ADAPTER / "README.md").write_text(card, encoding="utf-8")
        write_json(Path("metrics/training.json"), metrics)
        write_curve(CURVES / "training.csv", result.log, ["step", "loss", "learning_rate", "grad_norm"])
        write_curve(CURVES / "validation.csv", result.log, ["step", "eval_loss"])
    record_timing("finetune", result.seconds, result.tokens, device_memory_peak(device))


def launch() -> Launch:
    params = FinetuneParams.load()
    chosen = Launch.load(params.launch, "finetune.launch")
    chosen.require_divides(params.batch_size, "finetune.batch_size")
    return chosen


if __name__ == "__main__":
    run_launched("finetune", main, launch)
