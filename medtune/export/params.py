"""The section `export` of params.yaml."""

from typing import Literal

from pydantic import Field

from medtune.core.section import Section, Strict

Form = Literal["merged", "adapter", "gguf-f16", "gguf-q8_0"]
"""What a runtime loads: a folder, or a file of one."""


class Tolerance(Strict):
    """How far what an export answers may be from what was evaluated; beyond it the export fails."""

    prompts: float = Field(ge=0, le=1)
    """The least share of prompts that its own template and tokenizer write with the same tokens."""
    answers: float = Field(ge=0, le=1)
    """The least share of questions that it answers with the same words, given the same tokens; it fails if it
    is shown to be less."""
    log_likelihood: float = Field(ge=0)
    """The largest difference in the log-likelihood of a reference answer, in nats."""
    accuracy: float = Field(ge=0, le=1)
    """The largest loss of accuracy that may be shown, as in `medtune diff`."""


class ExportParams(Section):
    """What `medtune export` asks of what it writes, and when it fails. Read by no stage."""

    name = "export"

    questions: int | None = Field(ge=1)
    """So many of the test questions are asked, drawn by the seed; null: all that the adapter was asked."""
    seed: int = Field(ge=0, lt=2**32)
    """Decides which questions are drawn."""
    base_model: str | None = Field(pattern=r"^[\w-][\w.-]*/[\w.-]+$")
    """The hub id that exports name as their base, where model.source is none; null: as far as it is known."""
    merged: Tolerance
    """Of models/export/merged, in transformers."""
    adapter: Tolerance
    """Of models/export/adapter, in PEFT."""
    gguf_f16: Tolerance
    """Of models/export/gguf, in llama.cpp: weights in 16 bits."""
    gguf_q8_0: Tolerance
    """Of the file in which they are rounded to 8 bits."""

    def tolerance(self, form: Form) -> Tolerance:
        """That of a form."""
        known: dict[Form, Tolerance] = {
            "merged": self.merged,
            "adapter": self.adapter,
            "gguf-f16": self.gguf_f16,
            "gguf-q8_0": self.gguf_q8_0,
        }
        return known[form]
