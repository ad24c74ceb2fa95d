"""The model card: what the adapter is, how it did, how to use it, and the licences it comes under.

`medtune export` makes the cards of exports from the same parts.
"""

import json
from collections.abc import Mapping
from typing import Any

from medtune.core.front_matter import licence_of, with_front_matter
from medtune.core.markdown import code, fenced
from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.evaluate.card_results import measured, model_index, results
from medtune.model.naming import Base

WEIGHTS = "models/adapter/adapter_model.safetensors"
TEST = "data/prepared/test.jsonl"
TAGS = ["lora", "medical", "medtune"]
MOST_TARGETS = 8
"""Layers that are named; of more only their number."""


def model_card(
    answers: Mapping[str, Any],
    adapter: Mapping[str, Any],
    training: Mapping[str, Any],
    details: Mapping[str, Any],
    near: float,
    attribution: str,
    sources: Mapping[str, Mapping[str, Any]],
) -> str:
    """Markdown with the hub's front matter for `models/adapter/README.md`.

    `answers` is the record of the adapter's answers, `adapter` its configuration as PEFT saves it, `training`
    and `details` are metrics, `near` is evaluate.near_relative, `sources` is data/prepared/sources.json.
    """
    base = Base.of(answers["parameters"])
    front = front_matter(base, "peft", "adapter") | _evaluated(details, sources)
    body = [
        "# LoRA adapter for medical questions",
        NOT_MEDICAL_ADVICE,
        *built_with_llama(base.license),
        base.described(),
        "\n".join(f"- {line}" for line in (_shape(adapter), *_training(training))),
        "## Results",
        *results(details, near),
        "In the repository, `metrics/evaluation_results.json` has every answer, `metrics/report.html` every "
        "figure.",
        "## How to use it",
        "FOLDER is where this folder lies. In a clone of the repository at this commit: `medtune ask "
        "QUESTION --adapter FOLDER`. With PEFT, whose version is in `adapter_config.json`:",
        fenced(_code(base, answers["parameters"]), "python"),
        "## How it was asked",
        *asked(answers["parameters"]["prompt"]),
        "## What went in",
        "Made by medtune with `dvc repro`. In the repository, `models/record.json` names the data, "
        "parameters and code by digest, and as `adapter` these weights; `medtune verify` compares them all.",
        "\n".join(f"- {line}" for line in _digests(answers)),
        "## Training data",
        attribution.strip(),
    ]
    return with_front_matter(front, "\n\n".join(body))


def front_matter(base: Base, library: str, relation: str) -> dict[str, Any]:
    """What every card has for the hub: of which base it is, how it is loaded, under which licence."""
    named = {"base_model": base.hub_name, "base_model_relation": relation} if base.hub_name else {}
    found = {"library_name": library, "pipeline_tag": "text-generation"}
    return found | licence_of(base.license) | named | {"tags": TAGS}


def built_with_llama(licence: str) -> list[str]:
    """What Meta's licences (`llama3.2`) ask to be shown with a model built on theirs; for others nothing."""
    if not licence.lower().startswith("llama"):
        return []
    name = f"Llama {licence[len('llama') :].strip(' -')}".strip()
    return [
        f"**Built with Llama.** {name} is licensed under the {name} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved."
    ]


def asked(prompt: Mapping[str, Any]) -> list[str]:
    """What the adapter was asked with, ready to paste."""
    system, told = prompt["system"].strip(), _variables(prompt)
    shown = [fenced(system.splitlines(), "text")] if system else []
    said = "with this system prompt" if system else "without a system prompt"
    paragraphs = [
        f"It was trained and evaluated {said}; the chat template writes the trained one by itself when a "
        "conversation brings none. Answers were greedy (temperature 0).",
        *shown,
    ]
    if told:
        given = ", ".join(f"{code(name)}: {code(json.dumps(value))}" for name, value in told.items())
        paragraphs.append(f"Variables of the chat template: {given}")
    if prompt.get("template"):
        paragraphs.append("The chat template is not the base model's own.")
    return paragraphs


def _evaluated(details: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    hub = [source["path"] for source in sources.values() if source["origin"] == "hub"]
    datasets = {"datasets": sorted(hub)} if hub else {}
    return datasets | {"metrics": measured(details), "model-index": model_index(details, sources)}


def _variables(prompt: Mapping[str, Any]) -> dict[str, Any]:
    given = {"date_string": prompt.get("date")} | (prompt.get("template_options") or {})
    return {name: value for name, value in given.items() if value is not None}


def _shape(adapter: Mapping[str, Any]) -> str:
    variants = (("rsLoRA", adapter["use_rslora"]), ("DoRA", adapter["use_dora"]))
    variant = "".join(f", {name}" for name, used in variants if used)
    targets = adapter["target_modules"]
    if isinstance(targets, str):
        named = code(targets)
    else:
        named = ", ".join(targets) if len(targets) <= MOST_TARGETS else f"{len(targets)} layers by name"
    layers = adapter.get("layers_to_transform")
    part = f" of {len(layers)} decoder layer{'s' if len(layers) > 1 else ''}" if layers else ""
    return f"LoRA rank {adapter['r']}, alpha {adapter['lora_alpha']:g}{variant}, on {named}{part}"


def _training(training: Mapping[str, Any]) -> list[str]:
    return [
        f"{training['steps']} steps, {training['epochs']:.2f} times through {training['examples']} training "
        "examples",
        f"Validation loss {training['validation_loss']:.4f} at step {training['best_step']}, the one kept",
    ]


def _digests(answers: Mapping[str, Any]) -> list[str]:
    inputs, base = answers["inputs"], answers["base_model"]
    pinned = f"sha256 `{base['sha256']}`" if base.get("sha256") else f"commit `{base['revision']}`"
    return [
        f"Adapter, `adapter_model.safetensors`: sha256 `{inputs[WEIGHTS]}`",
        f"Base model: {pinned}",
        f"Test questions: sha256 `{inputs[TEST]}`",
    ]


def _code(base: Base, parameters: Mapping[str, Any]) -> list[str]:
    longest = parameters["answer"]["max_new_tokens"]
    given = "".join(f", {name}={value!r}" for name, value in _variables(parameters["prompt"]).items())
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        *base.loading(),
        'model = PeftModel.from_pretrained(base, "FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        "",
        'asked = [{"role": "user", "content": "QUESTION"}]',
        "prompt = tokenizer.apply_chat_template(",
        f'    asked, add_generation_prompt=True, return_dict=True, return_tensors="pt"{given}',
        ")",
        f"answer = model.generate(**prompt, do_sample=False, max_new_tokens={longest})",
        'print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
