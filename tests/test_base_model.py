"""The default base model itself: SmolLM2 from its GGUF."""

from pathlib import Path

import pytest
import torch

from medtune import base_model
from medtune.model_files import load_vocabulary, locate
from medtune.params import ComputeParams, ModelParams
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
    assert list(tmp_path.iterdir()) == []


def test_the_vocabulary_of_the_gguf_counts_as_the_tokenizer_does() -> None:
    vocabulary = load_vocabulary(locate(MODEL))
    tokenizer = base_model.load_tokenizer(base_model.base_folder(MODEL))
    for text in ("22q11.2 deletion\n\n  ätiology", "What is arachnodactyly?", "Aplasia/Hypoplasia (5th)"):
        assert vocabulary.encode(text).ids == tokenizer(text).input_ids
