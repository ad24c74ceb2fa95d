"""A trained adapter of a tiny Llama where `medtune export` expects one, made without a training."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from medtune.answer.params import Settings
from medtune.core.examples import Example, write_jsonl
from medtune.core.hashing import file_sha256
from medtune.core.outputs import write_json
from medtune.model.adapter import ADAPTER_FILES, attach_lora, publish_adapter, save_adapter
from medtune.model.base import describe_base, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.origin import Origin
from medtune.model.params import LoraParams
from medtune.run.lock_file import dvc_md5
from tests.conftest import EARLIER, ROOT, edit_params, example
from tests.evaluate.test_card import card as model_card_of
from tests.tiny import save_base

CARD = Path("models/adapter/README.md")

LORA = LoraParams(
    r=4, alpha=8, dropout=0.0, target_modules="all-linear", layers=None, rslora=False, dora=False
)
EXACT = {"prompts": 1.0, "answers": 1.0, "log_likelihood": 0.05, "accuracy": 0.0}
ROUNDED = {"prompts": 1.0, "answers": 0.0, "log_likelihood": 50.0, "accuracy": 1.0}
SHARP = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}


def build_llama(**changes: object) -> LlamaForCausalLM:
    """Random weights, so large that rotary positions and the order of heads matter to every logit."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 400}
    options = {**SHARP, **sizes, "max_position_embeddings": 512, "initializer_range": 0.2, **changes}
    return LlamaForCausalLM(LlamaConfig(**options)).eval()  # type: ignore[arg-type]


def create_trained(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel | None = None,
    params: Mapping[str, object] | None = None,
    chdir: Callable[[Path], None] | None = None,
) -> Path:
    """A folder with params.yaml, test questions, an adapter, its record and a dvc.lock that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    base = save_base(model or build_llama(), tokenizer, folder / "base") | {"model.source": "./base"}
    tolerances = {f"export.{name}": EXACT for name in ("merged", "adapter", "gguf_f16")}
    edit_params(
        folder / "params.yaml",
        {
            **base,
            "prompt.system": "Answer the question.",
            "compute.threads": 1,
            "answer.max_new_tokens": 8,
            "evaluate.set_kinds": [],
            "export.questions": None,
            "export.base_model": "org/tiny",
            "export.gguf_q8_0": ROUNDED,
            **tolerances,
            **dict(params or {}),
        },
    )
    if chdir is not None:
        chdir(folder)
    write_jsonl(folder / "data/prepared/test.jsonl", questions())
    _train(folder)
    return folder


def questions() -> list[Example]:
    """A few as they come, one with choices, one in a conversation."""
    asked = ["What is fever?", "Which organ systems does fever affect?", "What is 12 + 345?"]
    found = [
        example(id=str(number), group=str(number), question=text, answer="A high temperature.")
        for number, text in enumerate(asked)
    ]
    choices = ["nervous system", "long fingers", "fever"]
    chosen = example(id="c", group="c", choices=choices, answer="fever")
    return [*found, chosen, example(id="m", group="m", question="A sign, then?", messages=EARLIER)]


def _train(folder: Path) -> None:
    """Leave what the stage finetune leaves, with random weights in the adapter."""
    settings = Settings.load()
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    adapted = attach_lora(model, LORA, settings.model)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapter = folder / "models/adapter"
    save_adapter(adapted, folder / "checkpoint")
    encoder = ChatEncoder(load_tokenizer(folder / "base"), settings.prompt)
    base = describe_base(settings.model)
    origin = Origin(base["sha256"], settings.compute.quantization, settings.prompt)
    publish_adapter(folder / "checkpoint", encoder, adapter, origin)
    sections = {part.name: part.model_dump() for part in (settings.model, settings.prompt, settings.compute)}
    record = {
        "inputs": {},
        "parameters": sections,
        "base_model": base,
        "adapter": file_sha256(adapter / "adapter_model.safetensors"),
    }
    write_json(folder / "models/record.json", record)
    lock(folder)


def lock(folder: Path) -> None:
    """Write the dvc.lock that names the adapter as it lies there, and its card if it has one."""
    adapter = [*(Path("models/adapter") / name for name in ADAPTER_FILES), Path("models/record.json")]
    made = {"finetune": adapter, "evaluate": [path for path in (CARD,) if (folder / path).is_file()]}
    stages = {
        stage: {
            "cmd": f"python -m stages.{stage}",
            "outs": [
                {"path": path.as_posix(), "hash": "md5", "md5": dvc_md5(folder / path)} for path in paths
            ],
        }
        for stage, paths in made.items()
        if paths
    }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def _out(folder: Path, path: Path) -> dict[str, str]:
    return {"path": path.as_posix(), "hash": "md5", "md5": dvc_md5(folder / path)}


def evaluate(folder: Path, **changes: object) -> None:
    """Leave the card that the stage evaluate writes, with figures of other predictions."""
    weights = file_sha256(folder / "models/adapter/adapter_model.safetensors")
    text = model_card_of(source={"source": "./base", "revision": None, "sha256": "f" * 64}, **changes)  # type: ignore[arg-type]
    (folder / CARD).write_text(text.replace("a" * 64, weights))
    lock(folder)


def written(path: Path) -> dict[str, object]:
    """The content of a JSON file."""
    return json.loads(path.read_text())
