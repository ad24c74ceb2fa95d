"""The model card carries the base model's licence, and what that licence asks to be shown."""

from collections.abc import Mapping

import pytest

from medtune.evaluate.card import model_card

ADAPTER = {
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["k_proj", "q_proj"],
    "use_rslora": False,
    "use_dora": False,
}
TRAINING = {"steps": 10, "epochs": 0.8, "examples": 100, "validation_loss": 1.5, "best_step": 8}
FIGURES = {"tuned": {"accuracy": 0.22}, "base": {"accuracy": 0.0}, "lookup": {"accuracy": 0.19}}


PROMPT: dict[str, object] = {
    "system": "Answer in short.",
    "date": None,
    "template_options": {},
    "template": None,
}


def card(
    licence: str,
    quantization: str | None = None,
    prompt: Mapping[str, object] = PROMPT,
    **adapter: object,
) -> str:
    record = {
        "base_model": {"source": "org/model"},
        "parameters": {
            "model": {"license": licence},
            "compute": {"quantization": quantization},
            "prompt": prompt,
        },
    }
    return model_card(record, ADAPTER | adapter, TRAINING, FIGURES, "Attribution of the data.")


def test_it_says_what_was_adapted_and_how() -> None:
    text = card("mit", quantization="nf4", use_rslora=True)
    assert "`org/model`, quantised to nf4, licence mit" in text
    assert "- LoRA rank 8, alpha 16, rsLoRA, on k_proj, q_proj\n" in text
    plain = card("mit")
    assert "quantised" not in plain and "rsLoRA" not in plain


def test_it_says_how_well_the_adapter_did_and_whose_data_it_is() -> None:
    text = card("mit")
    assert "22.0%; the untuned model gives 0.0%, the best lookup in the training questions 19.0%\n" in text
    assert "Not medical advice" in text
    assert text.endswith("## Training data\n\nAttribution of the data.\n")


@pytest.mark.parametrize("licence", ["apache-2.0", "llama3.2"])
def test_the_licence_is_in_the_front_matter_and_the_text(licence: str) -> None:
    text = card(licence)
    assert f"\nlicense: {licence}\n" in text.split("---")[1]
    assert f"- Base model: `org/model`, licence {licence}" in text


def test_a_llama_card_says_built_with_llama() -> None:
    text = card("llama3.2")
    assert "\n\n**Built with Llama.** Llama 3.2 is licensed under the Llama 3.2 Community License, " in text
    assert "All Rights Reserved.\n\n- Base model" in text


def test_any_other_card_does_not() -> None:
    assert "Llama" not in card("apache-2.0")


def test_the_prompt_is_there_to_paste() -> None:
    text = card("mit")
    assert "The system prompt:\n\n```text\nAnswer in short.\n```\n" in text
    assert "Variables" not in text
    options = {"system": "Use ```.", "date": "26 Jul 2024", "template_options": {"enable_thinking": False}}
    text = card("mit", prompt=PROMPT | options)
    assert "\n\n````text\nUse ```.\n````\n" in text
    assert '`date_string`: `"26 Jul 2024"`, `enable_thinking`: `false`' in text
    assert "No system prompt." in card("mit", prompt=PROMPT | {"system": ""})
