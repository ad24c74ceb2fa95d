"""The default base model itself: SmolLM2 from its GGUF."""

import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256, files_sha256
from medtune.model import base as base_model
from medtune.model.params import ModelParams
from medtune.run.params import ComputeParams
from tests.conftest import ROOT

MODEL = ModelParams.load(ROOT / "params.yaml")
COMPUTE = ComputeParams.load(ROOT / "params.yaml")
CPU = torch.device("cpu")


def test_the_gguf_is_converted_once_and_loads_in_any_dtype() -> None:
    folder = base_model.base_folder(MODEL)
    assert MODEL.sha256 is not None and MODEL.sha256 in folder.name
    written = (folder / "model.safetensors").stat().st_mtime_ns
    model = base_model.load_model(MODEL, COMPUTE, torch.bfloat16, CPU)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert model.num_parameters() == 134_515_008
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path))

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        base_model.base_folder(MODEL)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A converted copy of the default model in a cache of its own."""
    shared = base_model.base_folder(MODEL)
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path))
    shutil.copytree(shared, tmp_path / shared.name)
    return tmp_path / shared.name


def test_other_weights_under_the_right_name_are_not_used(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = converted / "model.safetensors"
    right = file_sha256(weights)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert base_model.base_folder(MODEL) == converted
    assert file_sha256(weights) == right
    assert "not as it was converted; it is made anew" in capsys.readouterr().err


def test_a_copy_that_nothing_vouches_for_is_not_used(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(base_model, "_convert", lambda source, target: made.append(target.mkdir()))
    (converted / base_model.MANIFEST).unlink()
    base_model.base_folder(MODEL)
    assert len(made) == 1


def test_the_record_names_what_was_converted_and_by_what(converted: Path) -> None:
    described = base_model.describe_base(MODEL)
    assert (described["source"], described["sha256"]) == (MODEL.source, MODEL.sha256)
    files = [path for path in converted.iterdir() if path.name != base_model.MANIFEST]
    assert described["converted"] == {
        "sha256": files_sha256(files, converted),
        "transformers": version("transformers"),
        "gguf": version("gguf"),
    }


def saved(model: LlamaForCausalLM, folder: Path) -> ModelParams:
    """The parameters that name a model, pinned, once it lies in a folder."""
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return pinned(folder)


def pinned(folder: Path) -> ModelParams:
    """The parameters that name the model in a folder."""
    params = MODEL.model_copy(update={"source": str(folder), "sha256": None})
    with pytest.raises(MedtuneError) as error:
        base_model.base_folder(params)
    return params.model_copy(update={"sha256": str(error.value).split()[-1]})


CHANGES: list[tuple[str, Callable[[dict[str, Tensor]], object], str]] = [
    (
        "a tensor is not there",
        lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"),
        "model.layers.1.mlp.up_proj.weight is missing (1 such)",
    ),
    (
        "one is of a layer that config.json has not",
        lambda weights: weights.update({"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32)}),
        "model.layers.2.mlp.up_proj.weight is not of its config.json (1 such)",
    ),
    (
        "integers, of a model that was quantised",
        lambda weights: weights.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
        "model.norm.weight is stored as I8; accepted: weights in F64, F32, F16, BF16",
    ),
    (
        "another shape",
        lambda weights: weights.update({"model.norm.weight": torch.ones(31)}),
        "its weights do not fit its config.json",
    ),
]


@pytest.mark.parametrize(
    ("change", "expected"), [one[1:] for one in CHANGES], ids=[one[0] for one in CHANGES]
)
def test_weights_that_would_be_filled_up_with_random_ones_are_refused(
    tiny_llama: LlamaForCausalLM,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    expected: str,
) -> None:
    saved(tiny_llama, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MedtuneError, match=re.escape(expected)):
        base_model.load_model(pinned(tmp_path), COMPUTE, torch.float32, CPU)


def test_frequencies_that_older_files_have_beside_the_weights_are_passed_over(
    tiny_llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    saved(tiny_llama, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    base_model.load_model(pinned(tmp_path), COMPUTE, torch.float32, CPU)


def test_a_model_s_own_generation_settings_do_not_count(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    tiny_llama.generation_config.repetition_penalty = 5.0
    loaded = base_model.load_model(saved(tiny_llama, tmp_path), COMPUTE, torch.float32, CPU)
    assert loaded.generation_config is not None
    assert loaded.generation_config.repetition_penalty in (None, 1.0)


def test_every_end_token_of_a_model_is_known(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    tiny_llama.generation_config.eos_token_id = [3, 5]
    loaded = base_model.load_model(saved(tiny_llama, tmp_path), COMPUTE, torch.float32, CPU)
    assert base_model.end_ids(loaded) == [3, 5]
    loaded.generation_config.eos_token_id = 7
    assert base_model.end_ids(loaded) == [7]
    loaded.generation_config.eos_token_id = None
    assert base_model.end_ids(loaded) == []


def test_a_text_longer_than_the_context_is_refused(tiny_llama: LlamaForCausalLM) -> None:
    base_model.require_context(tiny_llama.config, 512)
    with pytest.raises(MedtuneError, match=r"a context of 512 tokens, but the longest question takes 513"):
        base_model.require_context(tiny_llama.config, 513)


def test_what_lies_beside_the_pinned_files_is_not_loaded(
    tiny_llama: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))
    weights = {name: tensor.clone() for name, tensor in tiny_llama.state_dict().items()}
    pinned = saved(tiny_llama, tmp_path / "base")
    adapter = get_peft_model(tiny_llama, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    adapter.save_pretrained(str(tmp_path / "adapter"))
    shutil.copy(tmp_path / "adapter/adapter_config.json", tmp_path / "base")
    templates = tmp_path / "base/additional_chat_templates"
    templates.mkdir()
    (templates / "default.jinja").write_text("Obey")
    loaded = base_model.load_model(pinned, COMPUTE, torch.float32, CPU)
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in weights.items())
    folder = base_model.base_folder(pinned)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }

    (folder / "added_tokens.json").write_text("{}")
    assert "added_tokens.json" not in {path.name for path in base_model.base_folder(pinned).iterdir()}
