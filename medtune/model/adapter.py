"""The LoRA adapter: attached to a frozen base, saved the same way every time, loaded again."""

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from medtune.core.errors import MedtuneError
from medtune.model.chat import ChatEncoder
from medtune.model.files import FLOATS, locate
from medtune.model.origin import Origin, read_origin, write_with_origin
from medtune.model.params import LoraParams, ModelParams, is_named
from medtune.run.params import ComputeParams

# PEFT 0.21 asks transformers 5 for this under its old name, once for every model.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ADAPTER_FILES = (WEIGHTS, CONFIG, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What an adapter's folder holds, beside the card."""
_OTHERWISE = (
    "alora_invocation_tokens",
    "arrow_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
"""What in an adapter's configuration makes other layers of it, or another base, than it was trained on."""
_STARTS = (True, False, "gaussian", "orthogonal")
"""How weights may have begun; others (pissa, olora) take from the base what they begin with."""
MERGE_TOLERANCE = 0.01
"""In nats: so far may a merge in float32 move the log-likelihood of a token."""


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
        attached = get_peft_model(base, config)
    except ValueError as error:
        raise MedtuneError(f"params.yaml: finetune.lora: {error}") from None
    _require_all(attached, lora)
    return attached


def _require_all(model: PeftModel, lora: LoraParams) -> None:
    """Refuse names and numbers of layers that are there, but not together: PEFT leaves such out silently."""
    adapted = model.targeted_module_names
    for name in [] if lora.target_modules == "all-linear" else lora.target_modules:
        if not any(is_named(layer, name) for layer in adapted):
            raise MedtuneError(
                f"params.yaml: finetune.lora.target_modules has '{name}', which none of finetune.lora.layers "
                "has"
            )
    for number in lora.layers or []:
        if not any(f".layers.{number}." in layer for layer in adapted):
            raise MedtuneError(
                f"params.yaml: finetune.lora.layers has {number}, in which finetune.lora.target_modules "
                "names none"
            )


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


def publish_adapter(checkpoint: Path, encoder: ChatEncoder, folder: Path, origin: Origin) -> None:
    """Make `folder` hold `ADAPTER_FILES`: what `save_adapter` wrote into a checkpoint, and the tokenizer.

    What it was trained with travels along: in the weights' header, and in the chat template, which writes the
    trained prompt for whoever gives none. Whatever else lies there, such as the card that `evaluate` writes,
    stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the folder, on the same file system: each file then takes its place in one step.
    with TemporaryDirectory(dir=folder.parent, prefix=".adapter-") as temporary:
        encoder.save_tokenizer(Path(temporary))
        shutil.copyfile(checkpoint / CONFIG, Path(temporary) / CONFIG)
        write_with_origin(checkpoint / WEIGHTS, checkpoint / CONFIG, origin, Path(temporary) / WEIGHTS)
        made = {path.name for path in Path(temporary).iterdir()}
        if made != set(ADAPTER_FILES):
            raise MedtuneError(
                f"model.source: its tokenizer and adapter are saved as {', '.join(sorted(made))}; accepted: "
                f"{', '.join(ADAPTER_FILES)}"
            )
        for name in ADAPTER_FILES:
            (Path(temporary) / name).replace(folder / name)


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on the base model it was trained on, for inference.

    Tensors that the model has no place for, or does not get, are a MedtuneError: PEFT only warns, and it
    would be the base that answers.
    """
    with warnings.catch_warnings():
        # Of missing tensors; the error below names them.
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        try:
            model = PeftModel.from_pretrained(base, str(folder), is_trainable=False, use_safetensors=True)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MedtuneError(f"{folder}: does not fit the base model: {reason}") from None
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        found = set(file.keys())
        for name in sorted(found):
            if (kind := file.get_slice(name).get_dtype()) not in FLOATS:
                raise MedtuneError(
                    f"{folder / WEIGHTS}: {name} is stored as {kind}; accepted: {', '.join(FLOATS)}"
                )
    expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    for names, what in ((found - expected, "which the base has no place for"), (expected - found, "missing")):
        if names:
            raise MedtuneError(
                f"{folder / WEIGHTS}: does not fit {CONFIG} and the base model: {min(names)} "
                f"{'is ' if what == 'missing' else ''}{what}; it was made for another model"
            )
    return model


def merge(model: PeftModel, prompts: Sequence[Sequence[int]]) -> PreTrainedModel:
    """Add an adapter to the weights of its base, in float32, so that it costs nothing per token.

    On the prompts, token ids, the merged model has to say what the unmerged one says: else a MedtuneError.
    """
    before = _log_likelihoods(model, prompts)
    merged: PreTrainedModel = model.merge_and_unload()
    pairs = zip(before, _log_likelihoods(merged, prompts), strict=True)
    worst = max(float((new - old).abs().max()) for old, new in pairs)
    # As a negation: NaN is no agreement.
    if not worst <= MERGE_TOLERANCE:
        raise MedtuneError(
            "the adapter, merged into its base, is another model: log-likelihoods of tokens differ by "
            f"{worst:.3g} nats (at most {MERGE_TOLERANCE} are rounding)"
        )
    return merged


def _log_likelihoods(model: nn.Module, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Of every token after each prompt, of shape (vocabulary,)."""
    device = next(model.parameters()).device
    rows = [torch.tensor([list(prompt)], device=device) for prompt in prompts]
    with torch.inference_mode():
        found = [model(input_ids=row, logits_to_keep=1) for row in rows]
    return [one.logits[0, -1].float().log_softmax(dim=-1) for one in found]


def check_adapter(folder: Path, model: ModelParams, compute: ComputeParams) -> Origin | None:
    """Refuse a folder that holds no whole adapter, or one that was trained on another base model.

    A base in four bits is another model than the one it was made from. Returns what the adapter was trained
    with, None for one from elsewhere: of that only the base's name is known, and perhaps its revision.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise MedtuneError(
                f"{folder}: holds no {name}; run `dvc repro` to train it or `dvc pull` to fetch it"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MedtuneError(f"{folder / CONFIG}: not the configuration of a PEFT adapter") from None
    for key in ("modules_to_save", "trainable_token_indices"):
        if config.get(key):
            raise MedtuneError(f"{folder / CONFIG}: {key} is set; accepted: adapters of LoRA weights alone")
    for key in _OTHERWISE:
        if config.get(key):
            raise MedtuneError(f"{folder / CONFIG}: {key} is set; accepted: LoRA, rsLoRA and DoRA as such")
    if (start := config.get("init_lora_weights", True)) not in _STARTS:
        raise MedtuneError(
            f"{folder / CONFIG}: init_lora_weights is '{start}', with which PEFT changes the base when it "
            f"loads; accepted: {', '.join(map(str, _STARTS))}"
        )
    if config.get("peft_type") != "LORA":
        raise MedtuneError(f"{folder / CONFIG}: peft_type is {config.get('peft_type')}; accepted: LORA")
    origin = read_origin(folder / WEIGHTS, folder / CONFIG)
    if base != model.source:
        named = f"trained on '{base}'" if base else f"{CONFIG} names no base (base_model_name_or_path)"
        raise MedtuneError(f"{folder}: {named}, but model.source in params.yaml is '{model.source}'")
    if revision is not None and revision != model.revision:
        raise MedtuneError(
            f"{folder}: trained on revision {revision} of its base, but model.revision in params.yaml is "
            f"{model.revision}"
        )
    if origin is not None:
        _require_same_base(folder, origin, model, compute)
    return origin


def _require_same_base(folder: Path, origin: Origin, model: ModelParams, compute: ComputeParams) -> None:
    if origin.base_sha256 != (here := locate(model).sha256):
        raise MedtuneError(
            f"{folder}: trained on a base with sha256 {origin.base_sha256}; that of model.source in "
            f"params.yaml has {here}"
        )
    if origin.quantization != compute.quantization:
        raise MedtuneError(
            f"{folder}: trained with compute.quantization '{origin.quantization}', but in params.yaml it is "
            f"'{compute.quantization}'"
        )
