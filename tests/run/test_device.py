import pytest
import torch

from medtune.core.errors import MedtuneError
from medtune.run import device as compute
from medtune.run.device import enough_memory, frozen_dtype, set_up
from medtune.run.params import ComputeParams
from tests.conftest import ROOT

CPU = torch.device("cpu")


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
