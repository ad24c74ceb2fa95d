"""The LoRA adapter: attached to a frozen base, saved the same way every time, loaded again."""

import json
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.model.files import locate
from medtune.model.params import LoraParams, ModelParams
from medtune.run.params import ComputeParams

# PEFT 0.21 asks transformers 5 for this under its old name, once for every model.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ADAPTER_FILES = (WEIGHTS, CONFIG, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What an adapter's folder holds, beside the card."""
RECORD = "record.json"
"""What went into an adapter; it lies beside the adapter's folder."""


def attach_lora(base: PreTrainedModel, lora: LoraParams, model: ModelParams) -> PeftModel:
    """Freeze `base` and add float32 LoRA weights to it (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

    Also rank-stabilised (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732) and weight-decomposed
    (Liu et al. 2024, https://arxiv.org/abs/2402.09353).
    """
    lora.require_layers(_linear_layers(base), base.config.num_hidden_layers)
    targets: str | list[str] = lora.target_modules
    if targets == "all-linear" and lora.layers is not None:
        # PEFT takes layer numbers beside names only.
        targets = sorted({name.rpartition(".")[2] for name in _linear_layers(base)})
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        layers_to_transform=lora.layers,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        revision=model.revision,
    )
    # Dropout comes between the two products, DoRA needs the norm of the whole weight, and NF4 a layer of its
    # own: those keep PEFT's. What is registered here is not written into the adapter, which loads anywhere.
    if not (lora.dropout or lora.dora or getattr(base, "is_quantized", False)):
        config._register_custom_module({nn.Linear: FoldedLora})
    # PEFT writes this name into the adapter; as loaded it is a path of this machine.
    base.name_or_path = model.source
    try:
        # PEFT keeps the new weights in float32 also over a base in bfloat16: steps of the optimizer are too
        # small for eight bits of mantissa.
        return get_peft_model(base, config)
    except ValueError as error:
        raise MedtuneError(f"params.yaml: finetune.lora: {error}") from None


class FoldedLora(LoraLinear):
    """PEFT's layer for training, whose update is added while it is computed: `xWᵀ + alpha/r · (xAᵀ)Bᵀ`.

    PEFT's own turns the input to float32 (which autocast takes back), scales the update and adds it, each a
    pass through memory.
    """

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """Map (..., inputs) to (..., outputs), in the dtype of `x`."""
        # PEFT's own also serves layers that are merged, switched off or of several adapters: not in training.
        [name] = self.active_adapters
        # The input has the dtype of the base. PEFT casts it to the adapter's; the weights are far smaller.
        down, up = (self.get_parameter(f"{part}.{name}.weight").to(x.dtype) for part in ("lora_A", "lora_B"))
        frozen: Tensor = self.get_submodule("base_layer")(x)
        # `addmm`, which scales and adds while it multiplies, knows matrices only: batch and tokens are one.
        update = linear(x, down).flatten(0, -2)
        scaling = self.scaling[name]
        return torch.addmm(frozen.flatten(0, -2), update, up.t(), alpha=scaling).view_as(frozen)


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers, all but the head, whose weights are often the embeddings."""
    head = model.get_output_embeddings()
    return [
        name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head
    ]


def save_adapter(model: PeftModel, folder: Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
    """Write the adapter's weights and configuration, and nothing else, in a fixed order.

    PEFT keeps `target_modules` as a set and writes it in hash order; its model card names local paths.
    """
    # By default PEFT would ask the hub whether the vocabulary has grown, to save the embeddings then.
    model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for key, value in config.items():
        if isinstance(value, list):
            config[key] = sorted(value)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def publish_adapter(checkpoint: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Make `folder` hold `ADAPTER_FILES`: what `save_adapter` wrote into a checkpoint, and the tokenizer.

    Whatever else lies there, such as the card that `evaluate` writes, stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the folder, on the same file system: each file then takes its place in one step.
    with TemporaryDirectory(dir=folder.parent, prefix=".adapter-") as temporary:
        tokenizer.save_pretrained(temporary)
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(checkpoint / name, Path(temporary) / name)
        made = {path.name for path in Path(temporary).iterdir()}
        if made != set(ADAPTER_FILES):
            raise MedtuneError(
                f"model.source: its tokenizer and adapter are saved as {', '.join(sorted(made))}; accepted: "
                f"{', '.join(ADAPTER_FILES)}"
            )
        for name in ADAPTER_FILES:
            (Path(temporary) / name).replace(folder / name)


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on the base model it was trained on, for inference."""
    return PeftModel.from_pretrained(base, str(folder), is_trainable=False, use_safetensors=True)


def check_adapter(folder: Path, model: ModelParams) -> None:
    """Refuse a folder that holds no whole adapter, or one that was trained on another base model."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise MedtuneError(
                f"{folder}: holds no {name}; run `dvc repro` to train it or `dvc pull` to fetch it"
            )
    try:
        base = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        raise MedtuneError(f"{folder / CONFIG}: not the configuration of a PEFT adapter") from None
    try:
        # Reads the header alone: its lengths tell a file that was cut off.
        safe_open(folder / WEIGHTS, framework="numpy")
    except SafetensorError as error:
        raise MedtuneError(f"{folder / WEIGHTS}: not a whole safetensors file: {error}") from None
    if base != model.source:
        raise MedtuneError(
            f"{folder}: trained on '{base}', but model.source in params.yaml is '{model.source}'"
        )


def check_record(folder: Path, model: ModelParams, compute: ComputeParams) -> None:
    """Refuse an adapter whose record, beside it, names other weights of the base, or another quantisation.

    A base in four bits is another model than the one it was made from. An adapter from elsewhere brings no
    record, or one of other weights, and is taken as it is.
    """
    path = folder.with_name(RECORD)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        weights, base = record["adapter"], record["base_model"]["sha256"]
        trained = record["parameters"]["compute"]["quantization"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise MedtuneError(f"{path}: not a record that medtune wrote; run `dvc repro`") from None
    if weights != file_sha256(folder / WEIGHTS):
        return
    if base != (here := locate(model).sha256):
        raise MedtuneError(
            f"{folder}: trained on a base with sha256 {base}; that of model.source in params.yaml has {here}"
        )
    if trained != compute.quantization:
        raise MedtuneError(
            f"{folder}: trained with compute.quantization '{trained}', but in params.yaml it is "
            f"'{compute.quantization}'"
        )
