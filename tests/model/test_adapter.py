import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear
from transformers import LlamaForCausalLM

from medtune.core.errors import MedtuneError
from medtune.model.adapter import FoldedLora, attach_lora, check_adapter, load_adapter, save_adapter
from medtune.model.params import LoraParams, ModelParams
from medtune.model.shape import Shape
from tests.conftest import ROOT

LORA = LoraParams(
    r=4, alpha=8, dropout=0.0, target_modules="all-linear", layers=None, rslora=False, dora=False
)
MODEL = ModelParams.load(ROOT / "params.yaml")


def test_only_the_adapter_is_trained_in_float32_on_every_linear_layer_but_the_head(
    tiny_llama: LlamaForCausalLM,
) -> None:
    model = attach_lora(tiny_llama.bfloat16(), LORA, MODEL)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert len(trained) == 2 * 2 * 7
    assert not any("lm_head" in name for name in trained)


def test_the_folded_update_is_that_of_peft(tiny_llama: LlamaForCausalLM) -> None:
    model = attach_lora(tiny_llama, LORA, MODEL).train()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    layers = [layer for layer in model.modules() if isinstance(layer, FoldedLora)]
    assert len(layers) == 2 * 7

    def loss_and_gradients() -> list[torch.Tensor]:
        model.zero_grad()
        loss = model(input_ids=torch.arange(20)[None], labels=torch.arange(20)[None]).loss
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    folded = loss_and_gradients()
    for layer in layers:
        layer.__class__ = LoraLinear  # type: ignore[assignment]
    for ours, peft in zip(folded, loss_and_gradients(), strict=True):
        torch.testing.assert_close(ours, peft)


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"dora": True}])
def test_dropout_and_dora_are_left_to_peft(tiny_llama: LlamaForCausalLM, changes: dict[str, object]) -> None:
    model = attach_lora(tiny_llama, LORA.model_copy(update=changes), MODEL)
    assert not any(isinstance(layer, FoldedLora) for layer in model.modules())


def test_a_saved_adapter_gives_the_same_logits_again(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    ids = torch.arange(20)[None]
    base = {name: tensor.clone() for name, tensor in tiny_llama.state_dict().items()}
    before = tiny_llama(input_ids=ids).logits
    model = attach_lora(tiny_llama, LORA, MODEL)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    expected = model(input_ids=ids).logits
    assert (expected - before).abs().max() > 0.1
    save_adapter(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    again = LlamaForCausalLM(tiny_llama.config).eval()
    again.load_state_dict(base)
    torch.testing.assert_close(load_adapter(again, tmp_path)(input_ids=ids).logits, expected)


def test_the_configuration_does_not_depend_on_hash_order(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from medtune.model.adapter import attach_lora, save_adapter
from tests.model.test_adapter import LORA, MODEL
tiny = LlamaConfig(vocab_size=40, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                   num_attention_heads=2, num_key_value_heads=2)
save_adapter(attach_lora(LlamaForCausalLM(tiny), LORA, MODEL), Path(sys.argv[1]))
"""
    configs = []
    for seed in ("1", "2", "3"):
        folder = tmp_path / seed
        subprocess.run(
            [sys.executable, "-c", script, folder],
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        configs.append((folder / "adapter_config.json").read_bytes())
    assert configs[0] == configs[1] == configs[2]
    assert len(json.loads(configs[0])["target_modules"]) == 7


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"target_modules": ["query"]},
            "target_modules has 'query', but the model has no such layer; accepted: ",
        ),
        (
            {"target_modules": ["q_proj", "v_porj"]},
            "has 'v_porj', but the model has no such layer; did",
        ),
        ({"target_modules": ["lm_head"]}, "has 'lm_head', but the model has no such layer"),
        ({"target_modules": []}, "target_modules is empty; accepted: all-linear"),
        ({"layers": [1, 2]}, "finetune.lora.layers has 2; accepted: 0 to 1"),
        ({"layers": [-1]}, "finetune.lora.layers has -1; accepted: 0 to 1"),
        ({"layers": []}, "finetune.lora.layers is empty; accepted: null"),
    ],
)
def test_layers_that_are_not_there_are_refused_and_not_left_out(
    tiny_llama: LlamaForCausalLM, changes: dict[str, object], expected: str, tmp_path: Path
) -> None:
    lora = LORA.model_copy(update=changes)
    with pytest.raises(MedtuneError, match=r"params.yaml: finetune.lora") as error:
        attach_lora(tiny_llama, lora, MODEL)
    assert expected in str(error.value)
    tiny_llama.config.save_pretrained(tmp_path)
    shape = Shape.from_config(tmp_path / "config.json")
    with pytest.raises(MedtuneError) as known_before:
        lora.require_layers(shape.linears, shape.layers)
    assert str(known_before.value) == str(error.value)


def test_a_missing_adapter_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(MedtuneError, match=r"`dvc repro` to train it or `dvc pull` to fetch it"):
        check_adapter(tmp_path, MODEL)


def test_an_adapter_of_another_base_model_is_refused(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    save_adapter(attach_lora(tiny_llama, LORA, MODEL), tmp_path)
    check_adapter(tmp_path, MODEL)
    with pytest.raises(MedtuneError, match=r"trained on 'package:.*', but model.source .* is 'org/other'"):
        check_adapter(tmp_path, MODEL.model_copy(update={"source": "org/other"}))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("adapter_config.json", b'{"r": 4', "adapter_config.json: not the configuration of a PEFT adapter"),
        ("adapter_config.json", b"[]", "adapter_config.json: not the configuration of a PEFT adapter"),
        (
            "adapter_model.safetensors",
            b"\x80\x04.",
            "adapter_model.safetensors: not a whole safetensors file",
        ),
        ("adapter_model.safetensors", b"", "adapter_model.safetensors: not a whole safetensors file"),
    ],
)
def test_a_damaged_adapter_is_refused(
    tiny_llama: LlamaForCausalLM, tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    save_adapter(attach_lora(tiny_llama, LORA, MODEL), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MedtuneError, match=expected):
        check_adapter(tmp_path, MODEL)
