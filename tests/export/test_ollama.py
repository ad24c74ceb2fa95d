"""The template in Go's language writes what the model's own writes."""

import re

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medtune.core.errors import MedtuneError
from medtune.export.ollama import go_template
from tests.conftest import CHATML
from tests.export.test_gguf_file import llama_3_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "What is fever?"},
    {"role": "assistant", "content": "A sign."},
    {"role": "user", "content": "Of what?"},
    {"role": "assistant", "content": "Of much."},
    {"role": "user", "content": "Such as?"},
]


def written_by_go(template: str, messages: list[dict[str, str]]) -> str:
    """What Go makes of the few actions that such a template has."""
    parts = re.split(r"\{\{ (.*?) \}\}", template)
    start = parts.index("range $i, $_ := .Messages")
    text, depth, end = parts[0:start:2], 0, start
    for number in range(start, len(parts), 2):
        depth += {"range": 1, "if": 1, "end": -1}.get(parts[number].split()[0], 0)
        if depth == 0:
            end = number
            break
    for index, message in enumerate(messages):
        text.append(_rendered(parts[start + 1 : end], index, message))
    return "".join([*text, *parts[end + 1 :: 2]])


def _rendered(parts: list[str], index: int, message: dict[str, str]) -> str:
    """The body of the loop: texts at even places, actions between them."""
    shown, text = [True], [parts[0]]
    for action, after in zip(parts[1::2], parts[2::2], strict=True):
        if action == ".Content":
            text += [message["content"]] if all(shown) else []
        elif found := re.fullmatch(r'if eq \.Role "(\w+)"', action):
            shown.append(message["role"] == found[1])
        elif found := re.fullmatch(r"if le \$i (\d)", action):
            shown.append(index <= int(found[1]))
        elif action == "else":
            shown[-1] = not shown[-1]
        else:
            assert action == "end"
            shown.pop()
        text += [after] if all(shown) else []
    return "".join(text)


@pytest.mark.parametrize("turns", [1, 3, 5])
@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("style", ["chatml", "llama 3", "no thinking"])
def test_ollama_writes_the_prompts_of_the_chat_template(
    chatml_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    style: str,
    system: bool,
    turns: int,
) -> None:
    tokenizer: PreTrainedTokenizerBase = llama_3_tokenizer() if style == "llama 3" else chatml_tokenizer
    if style == "no thinking":
        # As Qwen 3 with it switched off: the answer that is asked for begins otherwise than earlier ones.
        opened = CHATML.replace("assistant\n' }}", "assistant\n<think>\n\n</think>\n\n' }}")
        assert opened != CHATML
        monkeypatch.setattr(tokenizer, "chat_template", opened)
    messages = [*([SYSTEM] if system else []), *TURNS[:turns]]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if style == "llama 3":
        # Its GGUF says that a BOS comes before every text.
        text = str(text).removeprefix("<|begin_of_text|>")
    assert written_by_go(go_template(tokenizer, system=system), messages) == text


def test_a_template_that_writes_what_go_would_act_on_is_refused(
    chatml_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatml_tokenizer, "chat_template", "{{ '{{' }}" + CHATML)
    with pytest.raises(MedtuneError, match="cannot be written in Ollama's language"):
        go_template(chatml_tokenizer, system=True)
