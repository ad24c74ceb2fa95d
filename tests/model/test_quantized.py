"""QLoRA: a base in four bits, trained on and asked as it was trained, on the CPU."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.core.errors import MedtuneError
from medtune.model.adapter import attach_lora, load_adapter, save_adapter
from medtune.model.base import load_model
from medtune.model.params import LoraParams, ModelParams
from medtune.run.params import ComputeParams
from tests.conftest import ROOT, edit_params
from tests.project import STAGES, attempt, create_project, repro, run
from tests.tiny import create_tiny_project, save_base
from tests.tools import digests

COMPUTE = ComputeParams.load(ROOT / "params.yaml").model_copy(update={"quantization": "nf4"})
LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear", "layers": None}
CPU = torch.device("cpu")


@pytest.fixture
def base(
    tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> ModelParams:
    named = save_base(tiny_llama, chatml_tokenizer, tmp_path / "base")
    return ModelParams(**{key.removeprefix("model."): value for key, value in named.items()})  # type: ignore[arg-type]


def test_linear_layers_are_in_four_bits_and_close_to_what_they_were(
    base: ModelParams, tiny_llama: LlamaForCausalLM
) -> None:
    loaded = load_model(base, COMPUTE, torch.float32, CPU)
    layer = loaded.model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.weight.nbytes == layer.in_features * layer.out_features // 2
    assert loaded.lm_head.weight.dtype == loaded.model.embed_tokens.weight.dtype == torch.float32
    inputs = torch.randn(20, layer.in_features, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs, exact = layer(inputs), tiny_llama.model.layers[0].mlp.up_proj(inputs)
    assert 0 < (outputs - exact).norm() / exact.norm() < 0.25


def test_a_validation_changes_neither_weights_nor_gradients(base: ModelParams) -> None:
    lora = LoraParams.model_validate({**LORA, "rslora": False, "dora": False})
    torch.manual_seed(0)
    model = attach_lora(load_model(base, COMPUTE, torch.float32, CPU), lora, base)
    ids = torch.arange(2, 22)[None]

    def gradients() -> list[torch.Tensor]:
        model.train().zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    before = gradients()
    with torch.inference_mode():
        model.eval()(input_ids=ids)
    for one, other in zip(before, gradients(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rslora": True},
        {"dora": True},
        {"layers": [1]},
        {"target_modules": ["q_proj", "v_proj"]},
    ],
)
def test_every_variant_is_trained_saved_and_loaded_on_every_base(
    changes: dict[str, object], quantization: str | None, base: ModelParams, tmp_path: Path
) -> None:
    compute = COMPUTE.model_copy(update={"quantization": quantization})
    lora = LoraParams.model_validate({**LORA, "rslora": False, "dora": False} | changes)
    torch.manual_seed(0)
    model = attach_lora(load_model(base, compute, torch.float32, CPU), lora, base)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    assert any("magnitude" in name for name in trained) == lora.dora
    assert any(".layers.0." in name for name in trained) == (lora.layers is None)
    assert any("up_proj" in name for name in trained) == (lora.target_modules == "all-linear")
    ids = torch.arange(2, 22)[None]
    optimizer = torch.optim.AdamW(trained.values(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    save_adapter(model, tmp_path / "adapter")
    again = load_adapter(load_model(base, compute, torch.float32, CPU), tmp_path / "adapter")
    with torch.inference_mode():
        torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)


def test_a_high_rank_is_scaled_by_its_root(tiny_llama: LlamaForCausalLM, base: ModelParams) -> None:
    lora = LoraParams.model_validate({**LORA, "r": 16, "alpha": 16, "rslora": True, "dora": False})
    layer = attach_lora(tiny_llama, lora, base).get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    assert layer.scaling == {"default": 4.0}


def test_training_and_evaluation_have_the_same_four_bits(base: ModelParams) -> None:
    trained_on, evaluated_on = (
        {
            name: parameter.data.view(torch.uint8)
            for name, parameter in load_model(base, COMPUTE, dtype, CPU).named_parameters()
            if "_proj" in name
        }
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert len(trained_on) == 14
    for name, weights in trained_on.items():
        assert torch.equal(weights.flatten(), evaluated_on[name].flatten()), name


def test_without_bitsandbytes_the_way_to_it_is_said(
    base: ModelParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MedtuneError, match=r"bitsandbytes, which is not installed; run: make install"):
        load_model(base, COMPUTE, torch.float32, CPU)


def test_nothing_is_fetched_and_run_to_make_four_bits_faster(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text("raise SystemExit('a kernel from a hub was asked for')")
    notebook = (
        "import sys, medtune; medtune.Answerer; import bitsandbytes; assert 'kernels' not in sys.modules"
    )
    result = attempt("python", "-c", notebook, cwd=ROOT, env={"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stderr) == (0, "")


def stages(project: Path) -> None:
    for stage in ("finetune", "answer tuned"):
        run("python", "-m", *f"stages.{stage}".split(), cwd=project)


@pytest.mark.slow
def test_two_runs_in_four_bits_leave_the_same_bytes(
    tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    named = save_base(tiny_llama, chatml_tokenizer, tmp_path / "base")
    changes = {"compute.quantization": "nf4", "finetune.gradient_checkpointing": True}
    project = create_tiny_project(tmp_path / "medtune", named, changes)
    stages(project)
    first = {**digests(project / "models"), **digests(project / "metrics")}
    stages(project)
    second = {**digests(project / "models"), **digests(project / "metrics")}
    assert {name for name in first if first[name] != second[name]} <= {"timing.json"}
    environment = json.loads((project / "metrics/environment.json").read_text())
    assert "bitsandbytes" in environment["finetune"]["packages"]


@pytest.mark.slow
def test_the_real_model_in_four_bits(tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "compute.quantization": "nf4",
        "answer.examples_per_kind": 1,  # of four kinds
        "answer.max_new_tokens": 6,
    }
    for kind in ("organ_system", "medical_term", "definition", "finding"):
        changes |= {f"data.kinds.{kind}.train": 2, f"data.kinds.{kind}.validation": 1}
    project = create_project(tmp_path / "medtune", changes)
    assert repro(project) == set(STAGES)
    details = json.loads((project / "metrics/details.json").read_text())
    drift, tuned = details["unquantized"], details["all"]["tuned"]
    assert drift["n"] == tuned["n"] == 4
    assert set(drift) == set(tuned) | {"same_answers"}
    assert 0 <= drift["same_answers"] <= 1
    assert "BROKEN" not in attempt("python", "-m", "medtune.commands.cli", "verify", cwd=project).stdout
    training = json.loads((project / "metrics/training_details.json").read_text())
    assert training["parameters"] > 134_000_000
    edit_params(project / "params.yaml", {"compute.quantization": None})
    ask = ("python", "-m", "medtune.commands.cli", "ask", "Which organ systems does Short toe affect?")
    assert "trained with compute.quantization 'nf4'" in attempt(*ask, cwd=project).stderr
