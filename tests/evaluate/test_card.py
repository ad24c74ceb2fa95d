"""The model card has the figures of the evaluation, in a form that the hub reads, and the base's licence."""

from collections.abc import Mapping
from typing import Any

import pytest
from huggingface_hub import ModelCard

from medtune.core.front_matter import split_card
from medtune.evaluate.card import TEST, WEIGHTS, model_card
from medtune.evaluate.card_results import MOST_KINDS
from medtune.evaluate.summary import details, with_best_lookup
from medtune.model.naming import KNOWN_ORIGINS
from tests.evaluate.evaluated import PARAMS, predictions_of, questions, relatives_of
from tests.hub import faults_of_card

ADAPTER: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["k_proj", "q_proj"],
    "use_rslora": False,
    "use_dora": False,
}
TRAINING = {"steps": 10, "epochs": 0.8, "examples": 100, "validation_loss": 1.5, "best_step": 8}
PROMPT: dict[str, object] = {
    "system": "Answer in short.",
    "date": None,
    "template_options": {},
    "template": None,
}
HUB = {"hub": {"origin": "hub", "path": "org/data", "revision": "c" * 40, "license": "mit"}}
FILES = {"mine": {"origin": "files", "path": "data/raw/mine.csv", "revision": None, "license": None}}
ASKED = questions(24)


def evaluated() -> dict[str, Any]:
    """What the stage makes of real predictions."""
    return details(with_best_lookup(predictions_of(ASKED)), relatives_of(ASKED), [], PARAMS)


FIGURES = evaluated()


def card(
    licence: str = "mit",
    quantization: str | None = None,
    prompt: Mapping[str, object] = PROMPT,
    source: Mapping[str, object] | None = None,
    sources: Mapping[str, Mapping[str, Any]] = FILES,
    figures: Mapping[str, Any] = FIGURES,
    **adapter: object,
) -> str:
    model = {"source": "org/model", "revision": "b" * 40, "sha256": None, **dict(source or {})}
    record = {
        "inputs": {WEIGHTS: "a" * 64, TEST: "e" * 64},
        "base_model": model,
        "parameters": {
            "model": model | {"license": licence},
            "compute": {"quantization": quantization},
            "prompt": prompt,
            "answer": {"max_new_tokens": 64},
        },
    }
    return model_card(record, ADAPTER | adapter, TRAINING, figures, 0.5, "Attribution of the data.", sources)


def rows(text: str) -> dict[str, list[str]]:
    """The table of results by its first column; of equal labels the first row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found: dict[str, list[str]] = {}
    for line in lines:
        label, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
        found.setdefault(label, cells)
    return found


def test_it_says_what_was_adapted_and_how() -> None:
    text = card(quantization="nf4", use_rslora=True)
    assert (
        f"Base model: `org/model` at `{'b' * 40}`, licence mit. Trained and evaluated on it in nf4." in text
    )
    assert "- LoRA rank 8, alpha 16, rsLoRA, on k_proj, q_proj\n" in text
    plain = card()
    assert "nf4" not in plain and "rsLoRA" not in plain


def test_a_long_list_of_layers_is_counted() -> None:
    names = [f"model.layers.{number}.self_attn.q_proj" for number in range(30)]
    assert "alpha 16, on 30 layers by name\n" in card(target_modules=names)
    assert "on q_proj of 2 decoder layers\n" in card(target_modules=["q_proj"], layers_to_transform=[0, 1])


def test_the_table_has_every_figure_with_its_interval_and_its_verdict() -> None:
    found = rows(card())
    tuned = FIGURES["all"]["tuned"]
    share, low, high = (100 * tuned[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
    assert found["all"][0] == "24"
    assert found["all"][3] == f"{share:.1f}% [{low:.1f}%, {high:.1f}%]"
    against = FIGURES["comparisons"]["base"]["all"]["accuracy"]
    assert found["all"][4].startswith(f"{against['verdict']}: ")
    assert {"definition", "organ_system", "yes/no", "... without one"} <= set(found)
    assert found["definition"][0] == "8"


def test_the_hub_reads_the_same_figures_from_the_front_matter() -> None:
    read: Any = ModelCard(card()).data
    results = {(one.dataset_config, one.metric_type): one for one in read.eval_results}
    for config, figures in {
        None: FIGURES["all"],
        "no_near_relative": FIGURES["no_near_relative"]["all"],
        "kind=organ_system": FIGURES["kinds"]["organ_system"],
        "kind=organ_system, near_relative": FIGURES["near_relative"]["kinds"]["organ_system"],
    }.items():
        one, tuned = results[config, "exact_match"], figures["tuned"]
        assert one.metric_value == round(tuned["accuracy"], 4)
        assert one.metric_args is not None
        assert one.metric_args["low"] == round(tuned["accuracy_low"], 4)
        assert one.metric_args["n"] == tuned["n"]
        assert one.metric_args["lookup"] == round(figures["lookup"]["accuracy"], 4)
    whole = results[None, "exact_match"].metric_args
    assert whole is not None
    compared = FIGURES["comparisons"]["lookup"]["all"]["accuracy"]
    assert whole["against"]["lookup"]["verdict"] == compared["verdict"]
    assert results[None, "f1"].metric_value == round(FIGURES["all"]["tuned"]["token_f1"], 4)


@pytest.mark.parametrize("licence", ["apache-2.0", "llama3.2", "My own licence", ""])
@pytest.mark.parametrize("sources", [FILES, HUB, FILES | HUB], ids=["files", "hub", "both"])
def test_its_front_matter_is_as_the_hub_asks(licence: str, sources: Mapping[str, Mapping[str, Any]]) -> None:
    text = card(licence, sources=sources)
    assert faults_of_card(text) == []
    front, _ = split_card(text)
    assert front.get("datasets", []) == (["org/data"] if "hub" in sources else [])
    assert front["license"] == (licence if licence in ("apache-2.0", "llama3.2") else "other")


def test_a_base_in_a_package_is_named_by_where_it_is_from_and_one_in_a_folder_by_no_path() -> None:
    known = next(iter(KNOWN_ORIGINS))
    packed = card(source={"source": "package:a-b==1/x.gguf", "revision": None, "sha256": known})
    assert split_card(packed)[0]["base_model"] == KNOWN_ORIGINS[known]
    assert 'gguf_file="x.gguf"' in packed
    local = card(source={"source": "/home/me/base", "revision": None, "sha256": "f" * 64})
    assert "base_model" not in split_card(local)[0]
    assert "/home/me" not in local
    assert "f" * 64 in local


def test_it_names_what_it_is_of_and_whose_data_that_is() -> None:
    text = card()
    for digest in ("a" * 64, "b" * 40, "e" * 64):
        assert digest in text
    assert text.count("Not medical advice") == 1
    assert text.endswith("## Training data\n\nAttribution of the data.\n")


def test_of_many_kinds_the_largest_have_rows_and_no_name_breaks_the_table() -> None:
    few = FIGURES["kinds"]["definition"]
    many = {f"kind | {number}": few for number in range(MOST_KINDS + 3)}
    halves = {name: FIGURES[name] | {"kinds": {}} for name in ("near_relative", "no_near_relative")}
    text = card(figures={**FIGURES, **halves, "kinds": many})
    assert "3 more kinds are in `metrics/details.json`." in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line[:2] == "| "}) == 1


def test_a_llama_card_says_built_with_llama() -> None:
    text = card("llama3.2")
    assert "\n\n**Built with Llama.** Llama 3.2 is licensed under the Llama 3.2 Community License, " in text
    assert "All Rights Reserved.\n\nBase model" in text
    assert "Llama" not in card("apache-2.0")


def test_the_prompt_is_there_to_paste() -> None:
    text = card()
    assert "```text\nAnswer in short.\n```\n" in text
    assert "Variables" not in text
    options = {"system": "Use ```.", "date": "26 Jul 2024", "template_options": {"enable_thinking": False}}
    text = card(prompt=PROMPT | options)
    assert "\n\n````text\nUse ```.\n````\n" in text
    assert '`date_string`: `"26 Jul 2024"`, `enable_thinking`: `false`' in text
    assert "date_string='26 Jul 2024', enable_thinking=False" in text
    assert "evaluated without a system prompt" in card(prompt=PROMPT | {"system": ""})
