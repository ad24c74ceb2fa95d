"""The data card and the model card: what something is, where it comes from, under which licence."""

from collections.abc import Mapping
from typing import Any

from medtune.data.params import DataParams
from medtune.model.params import ModelParams
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams

NOT_MEDICAL_ADVICE = (
    "**Not medical advice.** Answers may be wrong and are no basis for any decision about health. "
    "The model exists to show and to study reproducible fine-tuning."
)


def data_card(params: DataParams, attribution: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Markdown for `data/prepared/README.md`; `counts` holds the examples by split and kind."""
    kinds = list(params.kinds)
    rows = [
        "| " + " | ".join([split, *(str(by_kind.get(kind, 0)) for kind in kinds)]) + " |"
        for split, by_kind in counts.items()
    ]
    table = "\n".join(["| split | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds), *rows])
    return (
        "# Medical questions and answers\n\n"
        f"Source: `{params.source}`, split by group with seed {params.seed}.\n\n"
        f"{attribution}\n\n{table}\n\n{NOT_MEDICAL_ADVICE}\n"
    )


def model_card(
    model: ModelParams,
    compute: ComputeParams,
    finetune: FinetuneParams,
    metrics: Mapping[str, Any],
    attribution: str,
) -> str:
    """Markdown with the hub's front matter for `models/adapter/README.md`."""
    batch = finetune.batch_size * finetune.gradient_accumulation
    notice = _built_with_llama(model.license)
    quantized = f", quantised to {compute.quantization}" if compute.quantization else ""
    lora = finetune.lora
    variant = "".join(f", {name}" for name, used in (("rsLoRA", lora.rslora), ("DoRA", lora.dora)) if used)
    return f"""---
library_name: peft
pipeline_tag: text-generation
license: {model.license}
base_model: {model.source}
tags: [lora, medical, medtune]
---

# LoRA adapter for medical questions

Trained by medtune with `dvc repro`; `provenance.json` holds the digests of the data, base model, code and
parameters that made it.
{notice}
- Base model: `{model.source}`{quantized}, licence {model.license}
- LoRA rank {lora.r}, alpha {lora.alpha:g}, on {lora.target_modules}{variant}
- {metrics["steps"]} steps of {batch} examples, learning rate {finetune.learning_rate:g}
- Validation loss {metrics["validation_loss"]:.4f} at step {metrics["best_step"]}, the one kept

{NOT_MEDICAL_ADVICE}

## Training data

{attribution.strip()}
"""


def _built_with_llama(licence: str) -> str:
    """What Meta's licences (`llama3.2`) ask to be shown with a model built on theirs; for others nothing."""
    if not licence.lower().startswith("llama"):
        return ""
    name = f"Llama {licence[len('llama') :].strip(' -')}".strip()
    return (
        f"\n**Built with Llama.** {name} is licensed under the {name} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved.\n"
    )
