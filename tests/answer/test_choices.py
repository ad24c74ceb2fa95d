"""The log-likelihood of every choice is that of a pass of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from medtune.answer.choices import choice_log_likelihoods
from medtune.model.attention import implementation
from medtune.verify.chain import verify_chain

END = 7
PROMPTS = [
    [i % 300 + 20 for i in range(start, start + length)]
    for start, length in [(0, 9), (50, 3), (100, 17), (7, 9), (200, 1)]
]
CHOICES = [
    [[5, 6, END], [5, END], [5, 6, 8, 9, END], [11, END]],
    [[30, END], [31, END]],
    [[40, 41, 42, 43, END]],
    [[5, 6, END], [5, END], [12, 13, END]],
    [[9, 9, 9, END], [9, 9, END], [9, END]],
]


def by_hand(model: LlamaForCausalLM, prompt: list[int], choice: list[int]) -> float:
    logits = model(input_ids=torch.tensor([prompt + choice])).logits[0, len(prompt) - 1 : -1]
    log_probabilities = logits.detach().double().log_softmax(-1)
    return sum(float(log_probabilities[place, token]) for place, token in enumerate(choice))


@pytest.mark.parametrize("beginning", [[], [9, 8, 7, 6, 5]])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("adapted", [False, True])
def test_the_figures_are_those_of_a_pass_for_each_choice(
    tiny_llama: LlamaForCausalLM, attention: str, beginning: list[int], adapted: bool
) -> None:
    tiny_llama.set_attn_implementation(implementation(attention))
    model: Any = tiny_llama
    if adapted:
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(tiny_llama, config).eval()
    prompts = [beginning + prompt for prompt in PROMPTS]
    figures = choice_log_likelihoods(model, prompts, CHOICES)
    expected = [
        [by_hand(model, prompt, choice) for choice in choices]
        for prompt, choices in zip(prompts, CHOICES, strict=True)
    ]
    for odds, by_passes in zip(figures, expected, strict=True):
        whole = [text + end for text, end in zip(*odds, strict=True)]
        assert whole == pytest.approx(by_passes, abs=1e-4)
    for prompt, choices, odds in zip(prompts, CHOICES, figures, strict=True):
        assert odds.texts == pytest.approx([by_hand(model, prompt, one[:-1]) for one in choices], abs=1e-4)
    assert max(max(row) - min(row) for row in expected) > 1


def test_a_question_alone_has_the_figures_it_has_in_a_batch(tiny_llama: LlamaForCausalLM) -> None:
    together = choice_log_likelihoods(tiny_llama, PROMPTS, CHOICES)
    for prompt, choices, figures in zip(PROMPTS, CHOICES, together, strict=True):
        alone = choice_log_likelihoods(tiny_llama, [prompt], [choices])[0]
        for values, others in zip(alone, figures, strict=True):
            assert values == pytest.approx(others, abs=1e-4)


@pytest.mark.slow
def test_the_pipeline_picks_the_likeliest_choice_and_verify_sees_another(
    finished_tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = shutil.copytree(finished_tiny_project, tmp_path / "medtune", symlinks=True)
    content = json.loads((project / "metrics/evaluation_results.json").read_text())
    closed = [row for row in content["results"] if "log_likelihoods" in row]
    assert 0 < len(closed) < len(content["results"])
    for row in closed:
        assert row["prediction"] == max(row["log_likelihoods"], key=row["log_likelihoods"].get)
        assert row["ground_truth"] in row["log_likelihoods"]
        assert row["correct"] == (row["prediction"] == row["ground_truth"])

    monkeypatch.chdir(project)
    assert broken("answers -> metrics, results and card") is None
    path = project / "metrics/answers-tuned.json"
    answers = json.loads(path.read_text())
    likelihoods = next(row["log_likelihoods"] for row in answers["answers"] if "log_likelihoods" in row)
    likelihoods[likelihoods.index(min(likelihoods))] = 0.0
    path.write_text(json.dumps(answers))
    assert "not answered with its likeliest choice" in str(broken("answers -> metrics, results and card"))


def broken(name: str) -> str | None:
    return next(link.broken for link in verify_chain() if link.name == name)
