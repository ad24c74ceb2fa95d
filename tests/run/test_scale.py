"""The table of docs/scale.md, computed anew."""

from medtune.model.memory import adapter_parameters, weight_bytes
from medtune.model.shape import PINNED, Shape
from medtune.train.params import FinetuneParams
from tests.conftest import ROOT

SHAPES = {source.rpartition("/")[2]: shape for (source, _), shape in PINNED.items()}
MODELS = {
    "SmolLM2-135M": SHAPES["SmolLM2-135M-Instruct.Q4_1.gguf"],
    "Llama-3.2-1B": SHAPES["Llama-3.2-1B-Instruct"],
    "Llama-3.2-3B": SHAPES["Llama-3.2-3B-Instruct"],
    "Llama-3.1-70B": Shape(8192, 80, 64, 8, 128, 28672, 128256, tied=False),
}
PROCESSES = 8


def test_the_figures_are_those_of_the_models_and_params() -> None:
    lora = FinetuneParams.load(ROOT / "params.yaml").lora
    rows = []
    for name, shape in MODELS.items():
        weights = adapter_parameters(shape, lora)
        mib, gib = 4 * weights / 2**20, weight_bytes(shape, "bfloat16", None) / 2**30
        # A ring: everything but its own share goes through each process, twice to reduce and spread a sum,
        # and once to gather; the base is gathered for the forward and for the backward pass.
        ring = 2 * (PROCESSES - 1) / PROCESSES
        nf4 = weight_bytes(shape, "bfloat16", "nf4") / 2**30
        figures = [f"{weights:,}", f"{mib:.1f}", f"{ring * mib:.1f}", f"{gib:.2f}", f"{ring * gib:.2f}"]
        rows.append("| " + " | ".join([name, *figures, f"{nf4:.2f}"]) + " |")
    page = (ROOT / "docs/scale.md").read_text()
    for row in rows:
        assert row in page, row
