"""A question that the model's context has no room for is told from those that it has."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.answer.answerer import Answerer
from medtune.answer.params import AnswerParams
from medtune.core.errors import MedtuneError
from medtune.model.chat import ChatEncoder
from medtune.model.params import PromptParams
from medtune.verify.chain import verify_chain
from tests.conftest import EARLIER, build_tiny_llama, edit_params, example
from tests.project import attempt, repro, run
from tests.tiny import create_tiny_project, save_base

PROMPT = PromptParams(system="Answer briefly.", date="26 Jul 2024")
ANSWER = AnswerParams(
    launch="single", seed=7, examples_per_kind=None, batch_size=4, max_new_tokens=8, unquantized=False
)


@pytest.fixture
def answerer(tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast) -> Answerer:
    return Answerer(tiny_llama, ChatEncoder(chatml_tokenizer, PROMPT), ANSWER)


def tokens(answerer: Answerer, **changes: object) -> int:
    return len(answerer.encoder.encode_prompt(example(**changes)))


def test_a_question_fits_if_its_longest_answer_does(answerer: Answerer) -> None:
    config, short, long = answerer.model.config, example(), example(question="What is a rather long fever?")
    config.max_position_embeddings = tokens(answerer) + ANSWER.max_new_tokens
    assert answerer.fitting([long, short, long]) == ([short], [long, long])
    config.max_position_embeddings -= 1
    with pytest.raises(MedtuneError) as error:
        answerer.fitting([long, short])
    assert f"(the shortest {config.max_position_embeddings + 1})" in str(error.value)
    assert "shorten prompt.system or the questions, or lower answer.max_new_tokens" in str(error.value)
    assert answerer.fitting([]) == ([], [])


def test_of_a_question_with_choices_the_longest_one_counts(answerer: Answerer) -> None:
    choices = ["A high temperature.", "no"]
    length = len(answerer.encoder.encode_answer(choices[0]))
    closed = example(choices=choices)
    answerer.model.config.max_position_embeddings = tokens(answerer, choices=choices) + length
    assert answerer.fitting([closed]) == ([closed], [])
    assert answerer.answer([closed])[0].text in choices
    answerer.model.config.max_position_embeddings -= 1
    assert answerer.fitting([closed, example()]) == ([example()], [closed])


def test_a_question_is_asked_with_the_turns_before_it(answerer: Answerer) -> None:
    asked = [example(messages=EARLIER, choices=["A high temperature.", "A cold."]), example(messages=EARLIER)]
    assert tokens(answerer, messages=EARLIER) > tokens(answerer)
    answerer.model.config.max_position_embeddings = tokens(answerer) + ANSWER.max_new_tokens
    assert answerer.fitting([*asked, example()]) == ([example()], asked)
    answerer.model.config.max_position_embeddings = 512
    with_turns, without = (
        answerer.answer([one.model_copy(update=changes) for one in asked])
        for changes in ({}, {"messages": None})
    )
    assert with_turns[0].log_likelihoods != without[0].log_likelihoods
    assert with_turns[1].text != without[1].text


def test_a_single_question_that_is_too_long_is_an_error(answerer: Answerer) -> None:
    with pytest.raises(MedtuneError, match="a context of 512 tokens, but the longest question takes"):
        answerer.ask("Fever? " * 512)


@pytest.mark.slow
def test_the_pipeline_leaves_out_what_is_too_long_and_counts_it(
    tmp_path: Path, chatml_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_tiny_llama()
    model.config.max_position_embeddings = 150
    base = save_base(model, chatml_tokenizer, tmp_path / "base")
    params = {
        "answer.examples_per_kind": None,
        "answer.max_new_tokens": 8,
        "finetune.epochs": 0.2,
        "finetune.max_length": 140,
        "prompt.system": "Answer.",
    }
    project = create_tiny_project(tmp_path / "medtune", base, params)
    monkeypatch.chdir(project)
    lengthen(Path("data/raw/questions.jsonl"), Path("data/prepared/test.jsonl"))
    repro(project)

    given = {model: content(f"answers-{model}") for model in ("base", "tuned")}
    left_out = given["base"]["too_long"]
    assert len(left_out) == 3
    for answers in given.values():
        assert answers["too_long"] == left_out
        assert not {row["id"] for row in answers["answers"]} & {*left_out}
    details = content("details")
    assert details["too_long"] == 3
    assert details["all"]["tuned"]["n"] == len(given["base"]["answers"]) == 10
    printed = run("dvc", "repro", "--force", "--single-item", "answer-base", "evaluate", cwd=project)
    assert "3 left out as longer than the model's context" in printed
    assert "left out as too long for the model with an answer: 3 of the questions" in printed
    assert not [link for link in verify_chain() if link.broken]

    edit_params(project / "params.yaml", {"prompt.system": "Answer. " * 150, "finetune.max_length": 2000})
    told = attempt("dvc", "repro", "answer-base", cwd=project).stderr
    assert "has a context of 150 tokens, but every question takes more with its answer" in told


def content(name: str) -> Any:
    return json.loads(Path(f"metrics/{name}.json").read_text())


def lengthen(source: Path, test: Path) -> None:
    """Give three test questions a context that the model has no room for."""
    chosen = [json.loads(line)["id"] for line in test.read_text().splitlines()][:3]
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for row in rows:
        if row["id"] in chosen:
            row["context"] = f"Long {row['id']}. " * 30
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
