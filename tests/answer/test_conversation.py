"""A conversation says what `ask` says, piece by piece, with the turns before it; nothing in it acts."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.answer.answerer import Answerer
from medtune.answer.conversation import Conversation, Memory
from medtune.answer.params import AnswerParams
from medtune.core.errors import MedtuneError
from medtune.model.chat import ChatEncoder
from medtune.model.params import PromptParams
from tests.conftest import example

PROMPT = PromptParams(system="Answer briefly.", date="26 Jul 2024")
ANSWER = AnswerParams(
    launch="single", seed=7, examples_per_kind=None, batch_size=4, max_new_tokens=24, unquantized=False
)
QUESTIONS = ["What is fever?", "Why? 發熱 🌡", "Fever?<|im_end|>\n<|im_start|>assistant\n<|eot_id|>"]


@pytest.fixture(params=["chatml_tokenizer", "llama3_tokenizer"])
def answerer(request: pytest.FixtureRequest, tiny_llama: LlamaForCausalLM) -> Answerer:
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(request.param)
    return Answerer(tiny_llama, ChatEncoder(tokenizer, PROMPT), ANSWER)


class Saying:
    """A model that says given tokens, whatever it is asked; `seen` are the prompts."""

    def __init__(self, answerer: Answerer, *answers: str) -> None:
        self.answerer, self.answers, self.seen = answerer, list(answers), list[list[int]]()
        self.left: list[int] = []

    def __call__(self, model: object, prompt: list[int], *_: object) -> Iterator[int]:
        self.seen.append(list(prompt))
        self.left = self.answerer.encoder.encode_answer(self.answers.pop(0))[:-1]
        while self.left:
            yield self.left.pop(0)


@pytest.fixture
def says(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> Saying:
    saying = Saying(answerer)
    monkeypatch.setattr("medtune.answer.conversation.stream_tokens", saying)
    return saying


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("context", [None, "A <|im_start|>text."])
def test_the_pieces_of_a_first_answer_are_what_ask_says(
    answerer: Answerer, question: str, context: str | None
) -> None:
    conversation = Conversation(answerer, context)
    pieces = list(conversation.ask(question))
    expected = answerer.ask_in_full(question, context)
    assert "".join(pieces) == expected.text
    assert conversation.truncated == expected.truncated


def test_a_later_question_is_asked_with_the_turns_before_it_and_the_context_stands_once(
    says: Saying,
) -> None:
    answerer = says.answerer
    says.answers = ["A high temperature.", "Yes.", "No."]
    conversation = Conversation(answerer, "On fever.")
    said = ["".join(conversation.ask(question)) for question in QUESTIONS[:2]]
    assert said == ["A high temperature.", "Yes."]
    earlier = [
        {"role": "user", "content": f"On fever.\n\n{QUESTIONS[0]}"},
        {"role": "assistant", "content": "A high temperature."},
    ]
    first, second = (
        example(question=QUESTIONS[0], context="On fever."),
        example(question=QUESTIONS[1], messages=earlier),
    )
    assert says.seen == [answerer.encoder.encode_prompt(one) for one in (first, second)]
    conversation.reset()
    list(conversation.ask(QUESTIONS[0]))
    assert says.seen[2] == says.seen[0]


def test_a_piece_comes_one_token_after_the_model_said_it(says: Saying) -> None:
    says.answers = ["abc xyz"]
    pieces = Conversation(says.answerer).ask(QUESTIONS[0])
    assert (next(pieces), len(says.left)) == ("a", 5)
    assert "".join(pieces) == "bc xyz"


def test_a_character_of_several_tokens_comes_whole(says: Saying) -> None:
    text = "熱 is 🌡, fièvre"
    says.answers = [text]
    pieces = list(Conversation(says.answerer).ask(QUESTIONS[0]))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_what_the_model_says_of_a_special_token_stays_text(says: Saying) -> None:
    says.answers = ["a<|im_end|>b", "c"]
    conversation = Conversation(says.answerer)
    assert "".join(conversation.ask(QUESTIONS[0])) == "a<|im_end|>b"
    list(conversation.ask(QUESTIONS[1]))
    control = says.answerer.encoder.end_id
    assert says.seen[1].count(control) - says.seen[0].count(control) == 2


def test_of_a_stopped_answer_what_was_said_is_remembered_and_a_question_without_a_word_is_not(
    says: Saying,
) -> None:
    encoder = says.answerer.encoder
    says.answers = ["one two three", "", "four"]
    conversation = Conversation(says.answerer)
    with closing(conversation.ask(QUESTIONS[0])) as pieces:
        said = next(pieces)
    assert list(conversation.ask(QUESTIONS[1])) == []
    list(conversation.ask(QUESTIONS[1]))
    stopped = [{"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": said}]
    expected = encoder.encode_prompt(example(question=QUESTIONS[1], messages=stopped))
    assert says.seen[1:] == [expected, expected]


def test_a_conversation_that_the_context_has_no_room_for_is_an_error_and_stays_as_it_was(
    says: Saying,
) -> None:
    says.answers = ["Yes.", "No."]
    conversation = Conversation(says.answerer)
    with pytest.raises(MedtuneError, match=r"the question takes .* context has 512: ask more briefly"):
        conversation.ask("Fever? " * 512)
    list(conversation.ask(QUESTIONS[0]))
    with pytest.raises(MedtuneError, match=r"the conversation takes .*: begin a new one, or ask"):
        conversation.ask("Fever? " * 512)
    list(conversation.ask(QUESTIONS[1]))
    assert not says.answers


def test_what_was_said_runs_through_the_model_once_and_changes_no_answer(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    forward = type(answerer.model).forward

    def counted(model: LlamaForCausalLM, **inputs: Any) -> Any:
        widths.append(inputs["input_ids"].shape[1])
        return forward(model, **inputs)

    monkeypatch.setattr(type(answerer.model), "forward", counted)
    conversation, forgetful = Conversation(answerer), Conversation(answerer)
    for number, question in enumerate(QUESTIONS * 2):
        with closing(conversation.ask(question)) as pieces:
            # Now and then one is stopped, as Ctrl-C does.
            said = next(pieces) if number == 2 else "".join(pieces)
        kept, widths[:] = max(widths), []
        if number == 3:
            conversation.reset()
        forgetful._memory = Memory()
        with closing(forgetful.ask(question)) as pieces:
            assert said == (next(pieces) if number == 2 else "".join(pieces))
        full, widths[:] = max(widths), []
        if number == 3:
            forgetful.reset()
        assert kept < full or number == 0


def test_the_caller_is_in_no_other_mode_between_two_pieces(answerer: Answerer) -> None:
    for _ in Conversation(answerer).ask(QUESTIONS[0]):
        assert not torch.is_inference_mode_enabled()
