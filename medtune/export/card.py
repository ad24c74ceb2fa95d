"""The card of an export: what the adapter's own says, what it is now, how to load it, how it was checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from medtune.core.front_matter import split_card, with_front_matter
from medtune.core.markdown import fenced
from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.evaluate.card import asked, built_with_llama, front_matter
from medtune.export.checked import Forms, describe_check
from medtune.model.naming import Base

TITLES = {
    "merged": "A model for medical questions",
    "gguf": "A model for medical questions, as GGUF",
    "adapter": "LoRA adapter for medical questions",
}
LIBRARIES = {"merged": "transformers", "gguf": "gguf", "adapter": "peft"}
RELATIONS = {"merged": "finetune", "gguf": "quantized", "adapter": "adapter"}
"""What the hub calls each beside its base model."""
OF_THE_ADAPTER = {
    "adapter": ("datasets", "metrics", "model-index"),
    "merged": ("datasets",),
    "gguf": ("datasets",),
}
"""What is taken from the adapter's front matter. Its figures are of the very weights of the format `adapter`
alone: others are rounded or added to the base, and the hub would show the figures as theirs."""
RESULTS, WENT_IN, DATA = "Results", "What went in", "Training data"
"""Sections of the adapter's card that an export's has too."""


@dataclass(frozen=True)
class AdapterCard:
    """The card that the stage evaluate wrote, in parts."""

    front: Mapping[str, Any]
    facts: list[str]
    sections: Mapping[str, str]

    @classmethod
    def read(cls, text: str) -> Self:
        """Of the card's text; a ValueError if it is none."""
        front, body = split_card(text)
        sections = _sections(body)
        if missing := [name for name in (RESULTS, WENT_IN, DATA) if name not in sections]:
            raise ValueError(f"no section '{missing[0]}'")
        return cls(front, [line for line in sections[""].splitlines() if line.startswith("- ")], sections)


def export_card(
    kind: str, base: Base, prompt: Mapping[str, Any], own: AdapterCard | None, forms: Forms
) -> str:
    """Markdown with the hub's front matter for the folder of a format: merged, gguf or adapter.

    `own` is the adapter's card, None for one that was not evaluated here; `forms` is what it was off by.
    """
    front = front_matter(base, LIBRARIES[kind], RELATIONS[kind])
    front |= {name: own.front[name] for name in OF_THE_ADAPTER[kind] if own and name in own.front}
    body = [
        f"# {TITLES[kind]}",
        NOT_MEDICAL_ADVICE,
        *built_with_llama(base.license),
        base.described(),
        *(["\n".join(own.facts)] if own else []),
        "## How to load it",
        _loading(kind, base),
        "## How it was asked",
        *asked(prompt),
        "## How it was checked",
        describe_check(forms),
        *_evaluation(own),
    ]
    return with_front_matter(front, "\n\n".join(body))


def _evaluation(own: AdapterCard | None) -> list[str]:
    if own is None:
        return [
            "## Results",
            "Not evaluated where it was exported; what it was trained on is not known there, nor under which "
            "licence that is.",
        ]
    return [
        "## Results of the adapter",
        "Those of the adapter before it was exported; how far this is from them stands above.",
        own.sections[RESULTS],
        "## What went in",
        own.sections[WENT_IN].replace("`models/record.json`", "`models/record.json` (`record.json` here)", 1),
        "## Training data",
        own.sections[DATA],
    ]


def _sections(body: str) -> dict[str, str]:
    """The text below each heading of the second level; "" is what comes before the first.

    Of equal headings the first counts, none within a block of code does, and none after the last of a card.
    """
    found: dict[str, list[str]] = {"": []}
    name, fence = "", ""
    for line in body.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if fence:
            fence = "" if line == fence else fence
        elif len(ticks) >= 3:
            fence = ticks
        elif line.startswith("## ") and name != DATA:
            name = line.removeprefix("## ")
            # What has the name of an earlier one is kept apart from it.
            name = name if name not in found else f"{name} again"
            found.setdefault(name, [])
            continue
        found[name].append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in found.items()}


def _loading(kind: str, base: Base) -> str:
    if kind == "gguf":
        return (
            "With llama.cpp: `llama-server --model model-q8_0.gguf`. With Ollama, in this folder: "
            "`ollama create NAME -f Modelfile`."
        )
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if kind == "merged":
        model = 'model = AutoModelForCausalLM.from_pretrained("FOLDER")'
        return fenced([imports, "", model, tokenizer], "python")
    model = 'model = PeftModel.from_pretrained(base, "FOLDER")'
    return fenced(["from peft import PeftModel", imports, "", *base.loading(), model, tokenizer], "python")
