"""Planned memory: exact where it is arithmetic, within 15% of what a stage needs on the CPU."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from medtune.commands import plan as planning
from medtune.commands.plan import (
    GIB,
    Device,
    Pass,
    Settings,
    Stage,
    adapter_parameters,
    describe,
    plan,
    weight_bytes,
)
from medtune.commands.profiles import list_profiles
from medtune.core.errors import MedtuneError
from medtune.model import shape as model_shape
from medtune.model.base import base_folder, load_model
from medtune.model.files import locate
from medtune.model.params import LoraParams, ModelParams
from medtune.model.shape import PINNED, SMOLLM2, Shape, find_shape
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams
from tests.commands.test_cli import medtune
from tests.conftest import ROOT

TOLERANCE = 0.15
SMOLLM2_SHAPE = PINNED[SMOLLM2, None]
UNKNOWN = ModelParams(source="someone/unknown", license="mit", revision="0" * 40)


def shape_of(model: LlamaForCausalLM, folder: Path) -> Shape:
    model.config.save_pretrained(folder)
    return Shape.from_config(folder / "config.json")


def parameters(shape: Shape) -> int:
    return shape.linear_parameters + shape.other_parameters


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_of_a_model_are_counted_exactly(tied: bool, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    assert parameters(shape_of(model, tmp_path)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        ({}, {"target_modules": "all-linear"}),
        ({"target_modules": ["q_proj", "mlp.down_proj"]}, {"target_modules": ["q_proj", "mlp.down_proj"]}),
        (
            {"target_modules": ["v_proj"], "layers": [1]},
            {"target_modules": ["v_proj"], "layers_to_transform": [1]},
        ),
        ({"dora": True}, {"target_modules": "all-linear", "use_dora": True}),
    ],
)
def test_parameters_of_an_adapter_are_those_of_peft(
    changes: dict[str, object],
    config: dict[str, object],
    tiny_llama: LlamaForCausalLM,
    tmp_path: Path,
    finetune_params: FinetuneParams,
) -> None:
    lora = finetune_params.lora.model_copy(update=changes)
    shape = shape_of(tiny_llama, tmp_path)
    model = get_peft_model(tiny_llama, LoraConfig(task_type="CAUSAL_LM", r=lora.r, **config))  # type: ignore[arg-type]
    assert adapter_parameters(shape, lora) == model.get_nb_trainable_parameters()[0]


@pytest.mark.slow
def test_the_pinned_shape_of_the_default_is_that_of_its_file() -> None:
    files = locate(ModelParams.load(ROOT / "params.yaml"))
    assert Shape.from_gguf(files.path) == SMOLLM2_SHAPE


@pytest.mark.slow
def test_four_bit_weights_take_what_bitsandbytes_stores() -> None:
    model = ModelParams.load(ROOT / "params.yaml")
    assert Shape.from_config(base_folder(model) / "config.json") == SMOLLM2_SHAPE
    compute = ComputeParams.load(ROOT / "params.yaml").model_copy(update={"quantization": "nf4"})
    loaded = load_model(model, compute, torch.float32, torch.device("cpu"))
    stored = 0
    for parameter in loaded.parameters():
        stored += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            nested = state.state2
            tensors = (state.absmax, state.code, state.offset, nested.absmax, nested.code)
            stored += sum(tensor.nbytes for tensor in tensors)
    assert weight_bytes(SMOLLM2_SHAPE, "float32", "nf4") == pytest.approx(stored, rel=0.02)


@pytest.mark.slow
def test_the_plan_is_within_15_percent_of_measured_peaks(
    finished_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_project)
    settings = Settings.load()
    device = Device.find(settings.compute)
    stages, from_data = plan(settings, device.kind, bfloat16=device.bfloat16)
    assert from_data
    measured = planning.measured_peaks()
    for stage in stages:
        # On a GPU only tensors are measured.
        needed = stage.total - (stage.parts["runtime"] if device.kind == "cuda" else 0)
        assert needed / GIB == pytest.approx(measured[stage.name], rel=TOLERANCE), stage
    assert "measured" in describe(None, kind=None, worst=False, as_json=False)


@pytest.mark.parametrize("name", list(list_profiles(ROOT / "profiles")))
def test_every_profile_has_a_plan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(model_shape, "hf_hub_download", None)
    printed = json.loads(describe(name, kind="cuda", worst=True, as_json=True))
    assert printed["lengths"] == "longest"
    for stage in printed["stages"].values():
        assert stage["total_gib"] == pytest.approx(sum(stage["gib"].values()), abs=0.01)
        assert stage["total_gib"] > 1


def test_the_page_shows_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    shown = re.findall(r"```\n\$ medtune (plan (\S+) .*)\n\n([^`]*)```", page)
    assert {name for _, name, _ in shown} == set(list_profiles(ROOT / "profiles"))
    for command, _, output in shown:
        assert medtune(*command.split()).stdout == output


def test_a_plan_for_a_named_device_imports_no_torch() -> None:
    script = (
        "import sys; from medtune.commands.plan import describe; "
        "describe('llama-3.2-1b', kind='cuda', worst=True, as_json=False); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"gradient_checkpointing": True}, "activations"),
        ({"tokens_per_pass": 512}, "activations"),
        ({"tokens_per_pass": 512}, "logits"),
        ({"precision": "bfloat16"}, "base weights"),
    ],
)
def test_the_knobs_lower_what_the_page_says(
    changes: dict[str, object], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = Settings.load()
    full = settings.finetune.model_copy(update={"precision": "float32"})

    def size(finetune: FinetuneParams) -> float:
        changed = Settings(settings.model, settings.prompt, settings.compute, finetune, settings.evaluate)
        return plan(changed, "cpu", data=False)[0][0].parts[part]

    assert size(full.model_copy(update=changes)) < size(full)


def test_a_shared_prefix_is_computed_once_and_its_keys_stand_in_every_row() -> None:
    one = Pass(rows=4, shared=10, length=5, labelled=8)
    assert (one.tokens, one.keys, one.scores) == (30, 60, 4 * 5 * 15 + 100)


def test_a_verdict_names_the_parameter_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    settings = Settings.load()
    device = Device("cpu", "CPU", total=3 * GIB, free=GIB, bfloat16=True)
    assert device.verdict(Stage("finetune", {"logits": GIB / 2}), settings) == "finetune fits"
    assert "free now" in device.verdict(Stage("finetune", {"logits": 2 * GIB}), settings)
    verdict = device.verdict(Stage("evaluate", {"cache": 4 * GIB}), settings)
    assert verdict.startswith("evaluate does not fit: 1.00 GiB too much; lower evaluate.batch_size")
    verdict = device.verdict(Stage("finetune", {"activations": 4 * GIB}), settings)
    assert "finetune.gradient_checkpointing to true" in verdict


def test_a_model_of_unknown_size_that_cannot_be_fetched_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(model_shape, "hf_hub_download", offline)
    with pytest.raises(MedtuneError, match=r"someone/unknown at 0{40}: its config.json.*couldn't connect"):
        find_shape(UNKNOWN)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("smollm2-135",), "error: no profile 'smollm2-135' in profiles; did you mean 'smollm2-135m'?"),
        (("llama-3.2-1b-qlora-t4", "--device", "cpu"), "error: compute.device is 'cuda'"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], expected: str) -> None:
    result = medtune("plan", *arguments)
    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_embd": 8}')
    with pytest.raises(MedtuneError, match="only Llama's architecture"):
        Shape.from_config(tmp_path / "config.json")


def test_lora_names_compare_as_peft_does(finetune_params: FinetuneParams) -> None:
    lora: LoraParams = finetune_params.lora.model_copy(update={"target_modules": ["proj"]})
    assert adapter_parameters(SMOLLM2_SHAPE, lora) == 0
