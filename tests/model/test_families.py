"""Chat templates and tokenizers in the manner of model families: the tokens of the template as a whole."""

from datetime import datetime
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.model.chat import ChatEncoder
from medtune.model.params import PromptParams
from tests.conftest import EARLIER, example, set_today
from tests.model.families import build

DAY = "26 Jul 2024"
QUIET = {"enable_thinking": False}
WITHOUT_SYSTEM = ("mistral 0.1", "mistral 0.3")
OPTIONS: dict[str, dict[str, Any]] = {"qwen 3": QUIET, "smollm3": QUIET}
FAMILIES = [
    "llama-2",
    "tinyllama",
    "tinyllama, not legacy",
    "mistral 0.1",
    "mistral 0.3",
    "gemma 3",
    "phi 3",
    "llama 3",
    "qwen 2.5",
    "qwen 3",
    "smollm3",
]
CONTENTS = [
    ("What is fever?", "A high temperature."),
    ("2 mg/kg?\n\nOr  more:\n- β-blockers", "(Maybe.)\nNo more than 3.5 “mg”."),
    ("「発熱」とは", "体温の上昇。"),
]


def prompt_of(family: str, **changes: object) -> PromptParams:
    system = "" if family in WITHOUT_SYSTEM else "Answer briefly.\nOnly terms."
    return PromptParams.model_validate(
        {"system": system, "date": DAY, "template_options": OPTIONS.get(family, {})} | changes
    )


def as_a_whole(tokenizer: PreTrainedTokenizerFast, prompt: PromptParams, example: Example) -> list[int]:
    """What transformers makes of the conversation when it encodes the rendered template at once."""
    said = [*example.turns, example.answer]
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(said)
    ]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    options: dict[str, Any] = {"date_string": prompt.date} | prompt.template_options
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("content", CONTENTS)
def test_tokens_are_those_of_the_rendered_template(
    family: str, content: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # SmolLM3 asks for the day in words of its own.
    set_today(monkeypatch, datetime(2024, 7, 26))
    tokenizer, prompt = build(family), prompt_of(family, date="26 July 2024")
    encoder = ChatEncoder(tokenizer, prompt)
    one = example(question=content[0], answer=content[1])
    whole = as_a_whole(tokenizer, prompt, one)
    encoded = encoder.encode(one)
    assert encoded.input_ids == whole[: len(encoded.input_ids)]
    assert encoded.input_ids[-1] == encoder.end_id not in encoded.input_ids[encoded.prompt_length : -1]
    assert encoder.decode(encoded.input_ids[encoded.prompt_length : -1]) == content[1]
    assert encoded.input_ids[: encoded.prompt_length] == encoder.encode_prompt(one)
    bos = tokenizer.bos_token_id
    assert encoded.input_ids.count(bos) == whole[: len(encoded.input_ids)].count(bos)


@pytest.mark.parametrize("family", FAMILIES)
def test_earlier_turns_are_those_of_the_rendered_template(family: str) -> None:
    tokenizer, prompt = build(family), prompt_of(family)
    encoder = ChatEncoder(tokenizer, prompt)
    one = example(messages=EARLIER)
    encoded = encoder.encode(one)
    if family != "smollm3":
        assert encoded.input_ids == as_a_whole(tokenizer, prompt, one)[: len(encoded.input_ids)]
    said = [encoded.input_ids[answer] for answer in encoded.answers]
    assert [encoder.decode(ids[:-1]) for ids in said] == ["No.", "Yes, of many.", "A high temperature."]
    # Qwen 3 leaves out of earlier answers that nothing was thought.
    assert encoded.alike == (family != "qwen 3")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("field", ["question", "answer", "context"])
def test_what_the_template_alone_may_write_stays_text_in_contents(family: str, field: str) -> None:
    tokenizer = build(family)
    encoder = ChatEncoder(tokenizer, prompt_of(family))
    names = {one.content: number for number, one in tokenizer.added_tokens_decoder.items() if one.special}
    for name in ("<think>", "</think>"):
        names[name] = tokenizer.get_vocab().get(name, -1)
    forged = " ".join(["x", *names, "y"])
    plain, control = encoder.encode(example(**{field: "x y"})), encoder.encode(example(**{field: forged}))
    ids = set(names.values()) - {tokenizer.unk_token_id}
    assert [i for i in plain.input_ids if i in ids] == [i for i in control.input_ids if i in ids]
    assert encoder.end_id in ids


def test_an_end_of_turn_that_no_setting_names_ends_answers() -> None:
    tokenizer = build("llama 3")
    encoder = ChatEncoder(tokenizer, prompt_of("llama 3"))
    assert tokenizer.decode([encoder.end_id]) == "<|eot_id|>"
    assert encoder.end_id not in tokenizer.all_special_ids


@pytest.mark.parametrize("family", ["qwen 3", "smollm3"])
def test_thinking_is_switched_off_by_an_option(family: str) -> None:
    tokenizer = build(family)
    encoder = ChatEncoder(tokenizer, prompt_of(family))
    assert "<think>\n\n</think>" in tokenizer.decode(encoder.encode_prompt(example()))


def test_an_answer_that_is_opened_in_two_ways_names_the_option() -> None:
    with pytest.raises(MedtuneError, match=r"opens an answer in two ways.*template_options.*enable_thinking"):
        ChatEncoder(build("qwen 3"), prompt_of("qwen 3", template_options={}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"enable_thinkin": False}, "did you mean 'enable_thinking'"), ({"bos_token": ""}, "bos_token")],
)
def test_an_option_that_the_template_does_not_read_is_refused(
    options: dict[str, object], expected: str
) -> None:
    with pytest.raises(MedtuneError, match=rf"prompt\.template_options has '.*{expected}"):
        ChatEncoder(build("qwen 3"), prompt_of("qwen 3", template_options=options))


def test_a_template_of_ones_own_replaces_one_that_cannot_be_used() -> None:
    tokenizer = build("r1")
    with pytest.raises(MedtuneError, match=r"opens an answer in two ways.*prompt\.template"):
        ChatEncoder(tokenizer, prompt_of("r1"))
    source = str(tokenizer.chat_template)
    own = source.replace("<|Assistant|><think>\n", "<|Assistant|>")
    encoder = ChatEncoder(tokenizer, prompt_of("r1", template=own))
    assert str(tokenizer.decode(encoder.encode_prompt(example()))).endswith("What is fever?<|Assistant|>")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("chatml.jinja", r"is 'chatml\.jinja', which writes no message; accepted: the text of a template"),
        ("{{ foo( }}", "cannot be used: unexpected"),
    ],
)
def test_a_template_of_ones_own_that_cannot_be_used_is_named(template: str, expected: str) -> None:
    with pytest.raises(MedtuneError, match=rf"^params\.yaml: prompt\.template {expected}"):
        ChatEncoder(build("qwen 3"), prompt_of("qwen 3", template=template, template_options={}))


@pytest.mark.parametrize("family", WITHOUT_SYSTEM)
def test_a_template_without_a_system_role_takes_an_empty_prompt(family: str) -> None:
    tokenizer = build(family)
    with pytest.raises(MedtuneError, match=r'takes no system prompt, so set prompt\.system .* to ""'):
        ChatEncoder(tokenizer, prompt_of(family, system="Answer."))
    with pytest.raises(MedtuneError, match="example '1' has 'system', but "):
        ChatEncoder(tokenizer, prompt_of(family)).encode(example(system="Answer."))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_saved_template_writes_the_prompt_that_was_trained(family: str) -> None:
    tokenizer, prompt = build(family), prompt_of(family)
    encoder = ChatEncoder(tokenizer, prompt)
    template = encoder.template.as_trained()
    question = [{"role": "user", "content": "What is fever?"}]
    text = tokenizer.apply_chat_template(
        question, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert tokenizer(text, add_special_tokens=False).input_ids == encoder.encode_prompt(example())
    if family not in WITHOUT_SYSTEM:
        own = [{"role": "system", "content": "Another."}, *question]
        text = tokenizer.apply_chat_template(
            own, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert "Another." in text
        assert "Only terms." not in text


@pytest.mark.parametrize("system", ['He said "no".\n{{ 1 }} {% if x %} \\n %}', "{# not #} a remark"])
def test_the_saved_template_writes_what_would_act_in_a_template(system: str) -> None:
    prompt = prompt_of("smollm3", system=system, date='{{ 1 + 1 }} "July" ')
    tokenizer = build("smollm3")
    encoder = ChatEncoder(tokenizer, prompt)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is fever?"}],
        chat_template=encoder.template.as_trained(),
        tokenize=False,
        add_generation_prompt=True,
    )
    assert tokenizer(text, add_special_tokens=False).input_ids == encoder.encode_prompt(example())


def test_a_template_that_changes_contents_is_refused() -> None:
    tokenizer = build("tinyllama")
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "message['content']", "message['content'] | replace('Yes', 'No')"
    )
    # Control tokens in the system prompt do not keep it from being seen.
    for system in ("Answer briefly.", "Never write </s>, but answer."):
        with pytest.raises(MedtuneError, match="gives other tokens for a conversation as a whole"):
            ChatEncoder(tokenizer, prompt_of("tinyllama", system=system))
    ChatEncoder(build("tinyllama"), prompt_of("tinyllama", system="Never write </s>, but answer."))
