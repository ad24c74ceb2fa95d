"""Llama-3.2-1B-Instruct by its configuration and template, with random weights: the real shape on the CPU."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.core.yaml_file import read_yaml
from tests.conftest import edit_params
from tests.project import attempt, run
from tests.tiny import create_tiny_project, save_base

pytestmark = pytest.mark.slow

QUARTER_OF_LLAMA = LlamaConfig(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=4,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_parameters={
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    tie_word_embeddings=True,
)
"""As in the config.json of meta-llama/Llama-3.2-1B-Instruct, but for a quarter of its sixteen layers."""
FEW: dict[str, object] = {
    "data.kinds": {"definition": {"train": 6, "validation": 1, "test": 2}},
    "prompt.system": "Add.",
    "finetune.batch_size": 2,
    "finetune.evaluate_every": 2,
    "finetune.precision": "auto",
    "compute.threads": 2,
    "compute.device": "cpu",
    "compute.attention": "eager",
    "answer.batch_size": 2,
    "answer.max_new_tokens": 2,
    "answer.unquantized": False,
}
"""Three steps; a checkpoint after the second."""
AT_MOST = 8 * 2**20
"""KiB of memory that no stage may exceed."""
STOP_AT_STEP_3 = """
import os, signal, sys
if sys.argv[0] == "-m":
    import transformers
    step = transformers.Trainer.training_step
    def counted(trainer, *arguments):
        if trainer.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, *arguments)
    transformers.Trainer.training_step = counted
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, llama3_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A repository on the profile llama-3.2-1b, whose weights are random and in a folder."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = LlamaForCausalLM(QUARTER_OF_LLAMA)
    finally:
        torch.set_default_dtype(torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 505_956_352
    base = save_base(model, llama3_tokenizer, folder / "base")
    del model
    return create_tiny_project(folder / "medtune", base, FEW)


@pytest.mark.parametrize("profile", ["llama-3.2-1b", "llama-3.2-1b-qlora-t4"])
def test_a_profile_trains_goes_on_and_evaluates(project: Path, tmp_path: Path, profile: str) -> None:
    folder = tmp_path / "medtune"
    shutil.copytree(project, folder)
    model = read_yaml(folder / "params.yaml")["model"]
    run("python", "-m", "medtune.commands.cli", "use", profile, cwd=folder)
    edit_params(folder / "params.yaml", {**FEW, "model": model})
    run("python", "-m", "stages.code", cwd=folder)
    stop = {"PYTHONPATH": str(tmp_path / "patch")}
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch/sitecustomize.py").write_text(STOP_AT_STEP_3)
    assert attempt("python", "-m", "stages.finetune", cwd=folder, env=stop).returncode == -9
    resumed = attempt("python", "-m", "stages.finetune", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step 2" in resumed.stdout + resumed.stderr
    run("python", "-m", "stages.answer", "tuned", cwd=folder)
    assert len(json.loads((folder / "metrics/answers-tuned.json").read_text())["answers"]) == 2
    training = json.loads((folder / "metrics/training_details.json").read_text())
    assert training["steps"] == 3
    assert training["parameters"] - training["trainable_parameters"] == 505_956_352
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < AT_MOST
