"""The model card carries the base model's licence, and what that licence asks to be shown."""

import pytest

from medtune.evaluate.cards import model_card
from medtune.model.params import ModelParams
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams
from tests.conftest import ROOT

METRICS = {"steps": 10, "validation_loss": 1.5, "best_step": 8}


def card(licence: str, finetune: FinetuneParams, quantization: str | None = None) -> str:
    model = ModelParams(source="org/model", license=licence, revision="0" * 40)
    compute = ComputeParams.load(ROOT / "params.yaml").model_copy(update={"quantization": quantization})
    return model_card(model, compute, finetune, METRICS, "Attribution of the data.")


def test_it_says_what_was_adapted_and_how(finetune_params: FinetuneParams) -> None:
    lora = finetune_params.lora.model_copy(update={"rslora": True})
    changed = finetune_params.model_copy(update={"lora": lora})
    text = card("mit", changed, quantization="nf4")
    assert "`org/model`, quantised to nf4, licence mit" in text
    assert "on all-linear, rsLoRA\n" in text
    plain = card("mit", finetune_params)
    assert "quantised" not in plain and "rsLoRA" not in plain


@pytest.mark.parametrize("licence", ["apache-2.0", "llama3.2"])
def test_the_licence_is_in_the_front_matter_and_the_text(
    licence: str, finetune_params: FinetuneParams
) -> None:
    text = card(licence, finetune_params)
    assert f"\nlicense: {licence}\n" in text.split("---")[1]
    assert f"- Base model: `org/model`, licence {licence}" in text


def test_a_llama_card_says_built_with_llama(finetune_params: FinetuneParams) -> None:
    text = card("llama3.2", finetune_params)
    assert "\n\n**Built with Llama.** Llama 3.2 is licensed under the Llama 3.2 Community License, " in text
    assert "All Rights Reserved.\n\n- Base model" in text


def test_any_other_card_does_not(finetune_params: FinetuneParams) -> None:
    assert "Llama" not in card("apache-2.0", finetune_params)
