import ast

import pytest
import torch

from medtune.core.errors import MedtuneError
from medtune.run import device as compute
from medtune.run.device import enough_memory, frozen_dtype, set_up
from medtune.run.params import ComputeParams
from tests.conftest import ROOT

CPU = torch.device("cpu")
COMPUTE = ComputeParams.load(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("precision", "native", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("bfloat16", True, torch.bfloat16),
        ("float32", False, torch.float32),
    ],
)
def test_the_base_is_in_what_the_processor_computes_in(
    precision: str, native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "has_native_bfloat16", lambda device: native)
    assert frozen_dtype(precision, CPU) == expected


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("bfloat16", "cpu", "far slower than float32; accepted here: auto, float32"),
        ("bfloat16", "cuda", "far slower than float32; accepted here: auto, float16, float32"),
        ("float16", "cpu", "'float16', which needs CUDA; accepted here: auto, float32"),
    ],
)
def test_a_precision_that_the_chip_lacks_is_refused(
    precision: str, device: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "has_native_bfloat16", lambda device: False)
    with pytest.raises(MedtuneError) as error:
        frozen_dtype(precision, torch.device(device))
    assert expected in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    params = ComputeParams.load(ROOT / "params.yaml").model_copy(update={"device": "cuda"})
    with pytest.raises(MedtuneError, match="no CUDA device is there; accepted: auto, cpu"):
        set_up(params, 1)


def test_running_out_of_memory_names_what_to_change() -> None:
    with (
        pytest.raises(
            MedtuneError, match=r"^out of memory: lower finetune\.tokens_per_pass\. `medtune plan`"
        ),
        enough_memory("lower finetune.tokens_per_pass"),
    ):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="inconsistent"), enough_memory("-"):
        raise RuntimeError("inconsistent shapes")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a GPU of Apple's")
def test_a_gpu_of_apple_s_that_is_not_there_is_refused() -> None:
    params = COMPUTE.model_copy(update={"device": "mps"})
    with pytest.raises(MedtuneError, match=r"compute\.device is 'mps', but .*; accepted: auto, cpu"):
        set_up(params, 1)


def test_quantisation_on_apple_s_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    params = COMPUTE.model_copy(update={"device": "mps"})
    assert compute.choose_device(params).type == "mps"
    with pytest.raises(MedtuneError, match="quantization has no kernels on mps"):
        compute.choose_device(params.model_copy(update={"quantization": "nf4"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("threads", "cores", "processes", "used", "said"),
    [
        (2, 2, 1, 2, ""),
        (2, 4, 1, 2, ""),
        (2, 32, 1, 2, "2 of 32 cores are used, as compute.threads says; auto would use all of them\n"),
        ("auto", 8, 1, 8, "8 threads (compute.threads: auto); another number of them can give other bytes\n"),
        ("auto", 8, 4, 2, "2 threads (compute.threads: auto); another number of them can give other bytes\n"),
    ],
)
def test_threads_are_pinned_or_those_of_the_machine_and_few_of_many_are_told(
    threads: int | str,
    cores: int,
    processes: int,
    used: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(compute, "cores_here", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    before = torch.get_num_threads()
    try:
        set_up(COMPUTE.model_copy(update={"threads": threads}), 1)
        assert torch.get_num_threads() == used
        environment = compute.describe_environment(CPU, torch.float32, quantised=False)
        assert environment["threads"] == used
    finally:
        torch.set_num_threads(before)
    assert capsys.readouterr().err == said


def test_what_windows_has_not_is_needed_by_no_import() -> None:
    for file in [*(ROOT / "medtune").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        imported = {
            alias.name
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert imported.isdisjoint({"resource", "fcntl", "pwd", "grp", "termios"}), file
