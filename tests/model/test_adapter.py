import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.core.errors import MedtuneError
from medtune.model.adapter import (
    CONFIG,
    WEIGHTS,
    FoldedLora,
    attach_lora,
    check_adapter,
    load_adapter,
    merge,
    publish_adapter,
    save_adapter,
)
from medtune.model.chat import ChatEncoder
from medtune.model.files import locate
from medtune.model.origin import Origin, differing_prompt
from medtune.model.params import LoraParams, ModelParams, PromptParams
from medtune.model.shape import Shape
from medtune.run.params import ComputeParams
from tests.conftest import ROOT

LORA = LoraParams(
    r=4, alpha=8, dropout=0.0, target_modules="all-linear", layers=None, rslora=False, dora=False
)
MODEL = ModelParams.load(ROOT / "params.yaml")
COMPUTE = ComputeParams.load(ROOT / "params.yaml")
PROMPT = PromptParams(system="Answer.", date="26 Jul 2024")


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
        ({"target_modules": ["lm_head"]}, "has 'lm_head': embeddings and output head often share"),
        ({"target_modules": ["embed_tokens"]}, "has 'embed_tokens': embeddings and output head often share"),
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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"target_modules": ["layers.0.self_attn.q_proj", "v_proj"], "layers": [1]},
            r"target_modules has 'layers\.0\.self_attn\.q_proj', which none of finetune\.lora\.layers has",
        ),
        (
            {"target_modules": ["layers.0.self_attn.q_proj"], "layers": [0, 1]},
            r"layers has 1, in which finetune\.lora\.target_modules names none",
        ),
    ],
)
def test_names_and_layers_that_do_not_meet_are_refused(
    tiny_llama: LlamaForCausalLM, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(MedtuneError, match=expected):
        attach_lora(tiny_llama, LORA.model_copy(update=changes), MODEL)


def test_a_missing_adapter_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(MedtuneError, match=r"`dvc repro` to train it or `dvc pull` to fetch it"):
        check_adapter(tmp_path, MODEL, COMPUTE)


def test_an_adapter_of_another_base_model_is_refused(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    save_adapter(attach_lora(tiny_llama, LORA, MODEL), tmp_path)
    check_adapter(tmp_path, MODEL, COMPUTE)
    with pytest.raises(MedtuneError, match=r"trained on 'package:.*', but model.source .* is 'org/other'"):
        check_adapter(tmp_path, MODEL.model_copy(update={"source": "org/other"}), COMPUTE)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(MedtuneError, match=r"adapter_config\.json names no base \(base_model_name_or_path\)"):
        check_adapter(tmp_path, MODEL, COMPUTE)


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
        check_adapter(tmp_path, MODEL, COMPUTE)


def published(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, **changes: object
) -> Path:
    """An adapter for `model` of weights that change its answers, as `finetune` publishes it."""
    assert MODEL.sha256 is not None
    attached = attach_lora(model, LORA.model_copy(update=changes), MODEL)
    torch.manual_seed(2)
    for name, parameter in attached.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_adapter(attached, folder / "checkpoint")
    origin = Origin(MODEL.sha256, None, PROMPT)
    publish_adapter(folder / "checkpoint", ChatEncoder(tokenizer, PROMPT), folder / "adapter", origin)
    return folder / "adapter"


def test_what_an_adapter_was_trained_with_travels_with_its_weights(
    tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = published(tiny_llama, chatml_tokenizer, tmp_path)
    assert check_adapter(folder, MODEL, COMPUTE) == Origin(str(MODEL.sha256), None, PROMPT)
    plain = load_file(tmp_path / "checkpoint" / WEIGHTS)
    assert all(torch.equal(plain[name], tensor) for name, tensor in load_file(folder / WEIGHTS).items())
    with pytest.raises(MedtuneError, match=r"trained with compute\.quantization 'None', but in params\.yaml"):
        check_adapter(folder, MODEL, COMPUTE.model_copy(update={"quantization": "nf4"}))


def test_an_adapter_of_other_bytes_of_its_base_is_refused(
    tiny_llama: LlamaForCausalLM,
    chatml_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = published(tiny_llama, chatml_tokenizer, tmp_path)
    other = replace(locate(MODEL), sha256="0" * 64)
    monkeypatch.setattr("medtune.model.adapter.locate", lambda model: other)
    with pytest.raises(MedtuneError, match=rf"a base with sha256 {MODEL.sha256}; that of .* has 000"):
        check_adapter(folder, MODEL, COMPUTE)


def test_an_adapter_of_another_revision_is_refused(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    hub = MODEL.model_copy(update={"source": "org/base", "revision": "1" * 40})
    save_adapter(attach_lora(tiny_llama, LORA, hub), tmp_path)
    check_adapter(tmp_path, hub, COMPUTE)
    with pytest.raises(MedtuneError, match=r"on revision 1+ of its base, but model\.revision .* is 2+"):
        check_adapter(tmp_path, hub.model_copy(update={"revision": "2" * 40}), COMPUTE)


def edit_config(folder: Path, **changes: object) -> None:
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lora_alpha": 16}, "lora_alpha is 16, but the weights were trained with 8"),
        ({"use_rslora": True}, "use_rslora is True, but the weights were trained with False"),
        (
            {"modules_to_save": ["lm_head"]},
            "modules_to_save is set; accepted: adapters of LoRA",
        ),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', with which PEFT changes the base"),
        ({"layer_replication": [[1, 2], [0, 1]]}, "layer_replication is set; accepted: LoRA"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is set; accepted: LoRA"),
        ({"peft_type": "IA3"}, "peft_type is IA3; accepted: LORA"),
    ],
)
def test_a_configuration_that_would_add_the_weights_otherwise_is_refused(
    tiny_llama: LlamaForCausalLM,
    chatml_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    changes: dict[str, object],
    expected: str,
) -> None:
    folder = published(tiny_llama, chatml_tokenizer, tmp_path)
    edit_config(folder, **changes)
    with pytest.raises(MedtuneError, match=expected):
        check_adapter(folder, MODEL, COMPUTE)


def rename(folder: Path, old: str, new: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name.replace(old, new): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: rename(folder, "base_model.model.", ""), "which the base has no place for"),
        (lambda folder: rename(folder, "layers.0", "layers.7"), r"layers\.7\..* which the base has no place"),
        (lambda folder: edit_config(folder, target_modules=["q_proj"]), "which the base has no place for"),
        (lambda folder: edit_config(folder, r=2), "does not fit the base model: .*size mismatch"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_where_peft_would_answer_with_the_base(
    tiny_llama: LlamaForCausalLM, tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    save_adapter(attach_lora(tiny_llama, LORA, MODEL), tmp_path)
    damage(tmp_path)
    with pytest.raises(MedtuneError, match=expected):
        load_adapter(LlamaForCausalLM(tiny_llama.config), tmp_path)


def test_tensors_that_were_swapped_are_refused(
    tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    weights = published(tiny_llama, chatml_tokenizer, tmp_path) / WEIGHTS
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights)
    one, other = (f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_A.weight" for n in (0, 1))
    tensors[one], tensors[other] = tensors[other], tensors[one]
    save_file(tensors, weights, metadata=metadata)
    with pytest.raises(MedtuneError, match="its tensors are not those that were trained"):
        check_adapter(weights.parent, MODEL, COMPUTE)


PROMPTS = [[1, 2, 3], list(range(20))]


@pytest.mark.parametrize("changes", [{}, {"dora": True}, {"rslora": True}])
def test_a_merge_says_what_the_adapter_says(
    tiny_llama: LlamaForCausalLM,
    chatml_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    changes: dict[str, object],
) -> None:
    folder = published(deepcopy(tiny_llama), chatml_tokenizer, tmp_path, **changes)
    base = tiny_llama(torch.tensor([PROMPTS[0]])).logits
    unmerged = load_adapter(deepcopy(tiny_llama), folder)(torch.tensor([PROMPTS[0]])).logits
    merged = merge(load_adapter(tiny_llama, folder), PROMPTS)(torch.tensor([PROMPTS[0]])).logits
    torch.testing.assert_close(merged, unmerged, atol=1e-3, rtol=1e-3)
    assert (merged - base).abs().max() > 0.1


def test_a_merge_that_changes_the_embeddings_too_is_refused(tiny_llama: LlamaForCausalLM) -> None:
    """The head of a tied model is its embeddings: an adapter from elsewhere may have one for it."""
    tied = LlamaForCausalLM(LlamaConfig(**tiny_llama.config.to_dict() | {"tie_word_embeddings": True})).eval()
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["lm_head"], init_lora_weights=False)
    with pytest.raises(MedtuneError, match="merged into its base, is another model: log-likelihoods"):
        merge(get_peft_model(tied, config), PROMPTS)


@pytest.mark.parametrize("now", [True, 1.0, "1"])
def test_what_python_calls_equal_is_another_prompt_to_a_template(now: object) -> None:
    trained, here = (PROMPT.model_copy(update={"template_options": {"level": level}}) for level in (1, now))
    assert differing_prompt(trained, here) == "prompt.template_options"
    assert differing_prompt(trained, trained) == ""
