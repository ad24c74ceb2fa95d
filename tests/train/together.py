"""A training run in one of two processes, for test_together.py.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.train.together FOLDER 0 8

The figures: seconds after which a checkpoint is made by time, and the step at which to die (-1: at none).
"""

import os
import sys
from pathlib import Path

import torch
from transformers import set_seed

from medtune.model.adapter import attach_lora
from medtune.model.params import ModelParams
from medtune.run import processes
from medtune.train import callbacks
from medtune.train.checkpoints import Checkpoints
from medtune.train.params import FinetuneParams
from medtune.train.trainer import AnswerTrainer, train
from tests.conftest import CHATML, ROOT, build_tiny_llama, build_tokenizer
from tests.train.test_trainer import rows


def main(folder: Path, save_after: float, kill_at: int) -> None:
    torch.set_num_threads(1)
    # The other processes have slow clocks: it is the main one's that counts.
    callbacks.SAVE_AFTER = save_after if processes.is_main() else 1e9
    params = FinetuneParams.load(ROOT / "params.yaml")
    dropout = params.lora.model_copy(update={"dropout": 0.1})
    changes = {"lora": dropout, "batch_size": 4, "log_every": 3, "evaluate_every": 7, "epochs": 1.0}
    params = params.model_copy(update=changes)
    device = torch.device("cpu")
    processes.connect(device)
    tokenizer = build_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_start|>", "<|im_end|>")
    base = build_tiny_llama()
    set_seed(params.seed)
    model = attach_lora(base, params.lora, ModelParams.load(ROOT / "params.yaml"))
    checkpoints = Checkpoints(folder / "progress", params.keep_checkpoints)
    trainer = AnswerTrainer(
        model, tokenizer, rows(38), rows(9), params, checkpoints, device, folder / "models/curves"
    )
    step = trainer.training_step

    def killed(*arguments: object) -> torch.Tensor:
        if trainer.state.global_step == kill_at:
            os._exit(1)
        return step(*arguments)  # type: ignore[arg-type]

    trainer.training_step = killed  # type: ignore[method-assign,assignment]
    result = train(trainer)
    if processes.is_main():
        os.chdir(folder)
        checkpoints.publish(result.steps, Path("models/checkpoints"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
