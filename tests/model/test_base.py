"""The default base model itself: SmolLM2 from its GGUF."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from medtune.core.errors import MedtuneError
from medtune.model import base as base_model
from medtune.model.files import load_vocabulary, locate
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


def test_the_vocabulary_of_the_gguf_counts_as_the_tokenizer_does() -> None:
    vocabulary = load_vocabulary(locate(MODEL))
    tokenizer = base_model.load_tokenizer(base_model.base_folder(MODEL))
    for text in ("22q11.2 deletion\n\n  ätiology", "What is arachnodactyly?", "Aplasia/Hypoplasia (5th)"):
        assert vocabulary.encode(text).ids == tokenizer(text).input_ids


def test_a_model_s_own_generation_settings_do_not_count(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    tiny_llama.generation_config.repetition_penalty = 5.0
    tiny_llama.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    params = MODEL.model_copy(update={"source": str(tmp_path), "sha256": None})
    with pytest.raises(MedtuneError) as error:
        base_model.base_folder(params)
    pinned = params.model_copy(update={"sha256": str(error.value).split()[-1]})
    loaded = base_model.load_model(pinned, COMPUTE, torch.float32, CPU)
    assert loaded.generation_config is not None
    assert loaded.generation_config.repetition_penalty in (None, 1.0)
