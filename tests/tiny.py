"""The pipeline with a model and data so small that a stage takes seconds, for tests that run it often."""

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medtune.core.hashing import files_sha256
from medtune.data.tracking import declare
from tests.conftest import CHATML, build_tiny_llama, build_tokenizer
from tests.project import create_project, run

TINY: dict[str, object] = {
    "data.sources": {"sums": {"path": "data/raw/questions.jsonl"}},
    "prompt.system": "Answer <b>with</b> the sum alone: {{ 7 }}.",
    "data.kinds": {"definition": {"train": 153, "validation": 11, "test": 13}},
    "compute.threads": 1,
    "finetune.precision": "float32",
    "finetune.batch_size": 8,
    "finetune.evaluate_every": 6,
    "finetune.log_every": 1,
    "finetune.learning_rate": 0.01,
    "answer.batch_size": 4,
    "evaluate.set_kinds": [],
}
"""Told with markup; 20 steps, of which the last has one example only; four batches to evaluate."""


def save_base(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, object]:
    """Save a base model; return the parameters that name it."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "model.source": str(folder),
        "model.sha256": files_sha256(folder.iterdir(), folder),
        "model.license": "mit",
    }


def build_tiny_base(folder: Path) -> dict[str, object]:
    """A Llama with random weights and a tokenizer of ChatML; return the parameters that name it."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = build_tokenizer(CHATML, special, "<|im_start|>", "<|im_end|>")
    return save_base(build_tiny_llama(), tokenizer, folder)


def create_tiny_project(
    folder: Path, base: Mapping[str, object], params: Mapping[str, object], *, prepared: bool = True
) -> Path:
    """A repository whose questions are arithmetic, every other with choices."""
    folder = create_project(folder, {**TINY, **base, **params})
    rows = [
        {"id": str(i), "question": f"What is {i} + {i * i}?", "answer": f"{i + i * i}", "kind": "definition"}
        | ({} if i % 2 == 0 else {"choices": [f"{i * i}", f"{i + i * i}", f"{i + i * i}0", "none of these"]})
        for i in range(260)
    ]
    lines = "".join(json.dumps(row | {"group": row["id"]}) + "\n" for row in rows)
    (folder / "data/raw/questions.jsonl").write_text(lines)
    declare([Path("data/raw/questions.jsonl")], folder / "dvc.yaml")
    if prepared:
        run("dvc", "repro", "prepare", cwd=folder)
    return folder
