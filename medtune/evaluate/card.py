"""The model card: what the adapter is, how it did, and the licences it comes under."""

import json
import re
from collections.abc import Mapping
from typing import Any

from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.evaluate.models import BASE, LOOKUP, TUNED


def model_card(
    answers: Mapping[str, Any],
    adapter: Mapping[str, Any],
    training: Mapping[str, Any],
    models: Mapping[str, Any],
    attribution: str,
) -> str:
    """Markdown with the hub's front matter for `models/adapter/README.md`.

    `answers` is the record of the adapter's answers, `adapter` its configuration as PEFT saves it, `training`
    is metrics, `models` has the figures of each model over all questions.
    """
    base, parameters = answers["base_model"], answers["parameters"]
    licence, quantization = parameters["model"]["license"], parameters["compute"]["quantization"]
    quantized = f", quantised to {quantization}" if quantization else ""
    variants = (("rsLoRA", adapter["use_rslora"]), ("DoRA", adapter["use_dora"]))
    variant = "".join(f", {name}" for name, used in variants if used)
    lora = f"rank {adapter['r']}, alpha {adapter['lora_alpha']:g}{variant}"
    targets = ", ".join(adapter["target_modules"])
    exact = {name: f"{figures['accuracy']:.1%}" for name, figures in models.items()}
    lookup = f", the best lookup in the training questions {exact[LOOKUP]}" if LOOKUP in exact else ""
    return f"""---
library_name: peft
pipeline_tag: text-generation
license: {licence}
base_model: {base["source"]}
tags: [lora, medical, medtune]
---

# LoRA adapter for medical questions

Trained by medtune with `dvc repro`; `models/record.json` of the repository holds the digests of the data,
base model, code and parameters that made it.
{_built_with_llama(licence)}
- Base model: `{base["source"]}`{quantized}, licence {licence}
- LoRA {lora}, on {targets}
- {training["steps"]} steps, {training["epochs"]:.2f} times through {training["examples"]} training examples
- Validation loss {training["validation_loss"]:.4f} at step {training["best_step"]}, the one kept
- Exact answers to the test questions: {exact[TUNED]}; the untuned model gives {exact[BASE]}{lookup}

{NOT_MEDICAL_ADVICE}
{_prompt(parameters["prompt"])}
## Training data

{attribution.strip()}
"""


def _prompt(prompt: Mapping[str, Any]) -> str:
    """What the adapter was asked with, ready to paste."""
    system, options = prompt["system"].strip(), prompt.get("template_options")
    # A fence longer than any in the text.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", system)), default=0))
    shown = f"The system prompt:\n\n{fence}text\n{system}\n{fence}\n" if system else "No system prompt.\n"
    given = {"date_string": prompt.get("date")} | (options or {})
    told = ", ".join(f"`{name}`: `{json.dumps(value)}`" for name, value in given.items() if value is not None)
    variables = f"\nVariables of the chat template: {told}\n" if told else ""
    own = "\nThe chat template is not the base model's own.\n" if prompt.get("template") else ""
    return (
        "\n## How it was asked\n\n`chat_template.jinja` writes this by itself when a conversation brings no "
        f"system prompt of its own. {shown}{variables}{own}"
    )


def _built_with_llama(licence: str) -> str:
    """What Meta's licences (`llama3.2`) ask to be shown with a model built on theirs; for others nothing."""
    if not licence.lower().startswith("llama"):
        return ""
    name = f"Llama {licence[len('llama') :].strip(' -')}".strip()
    return (
        f"\n**Built with Llama.** {name} is licensed under the {name} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved.\n"
    )
