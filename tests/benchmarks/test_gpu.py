import json
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu_base import SHAPES, SHARED, random_rows
from tests.conftest import ROOT


def test_the_shape_is_that_of_llama_3_2_1b() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES["llama-3.2-1b"].config))
    assert model.num_parameters() == 1_235_814_400


def test_rows_begin_alike_and_are_always_the_same() -> None:
    rows = random_rows("tiny", 20, 512)
    assert rows == random_rows("tiny", 20, 512)
    assert len({tuple(row["input_ids"][:SHARED]) for row in rows}) == 1
    low, high = SHAPES["tiny"].lengths
    assert all(low <= len(row["input_ids"]) == len(row["labels"]) <= high for row in rows)


def test_the_bench_of_a_gpu_runs_on_a_cpu_with_a_tiny_shape() -> None:
    options = ["--shape", "tiny", "--adapters", "lora", "--sides", "plain", "--rounds", "1", "--steps", "2"]
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    printed_last = json.loads(printed.splitlines()[-1])
    assert printed_last["answers"]["vs_generate"] > 0
    found = printed_last["lora"]
    assert found["identical_adapters"]
    assert found["plan_holds"]
    assert 0 < found["matmul_share"] < 1
    assert len(found["losses"]["medtune"]) == 4
    for what in ("losses", "gradient_norms"):
        assert found[what]["medtune"] == pytest.approx(found[what]["plain"], abs=1e-4)
