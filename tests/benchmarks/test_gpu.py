import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def test_the_bench_of_a_gpu_runs_on_a_cpu_with_a_tiny_shape() -> None:
    options = ["--shape", "tiny", "--adapters", "lora", "--sides", "plain", "--rounds", "1", "--steps", "2"]
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(printed.splitlines()[-1])["lora"]
    assert found["identical_adapters"]
    assert found["plan_holds"]
    assert 0 < found["matmul_share"] < 1
    assert len(found["losses"]["medtune"]) == 4
    for what in ("losses", "gradient_norms"):
        assert found[what]["medtune"] == pytest.approx(found[what]["plain"], abs=1e-4)
