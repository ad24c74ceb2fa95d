"""The chat template of a GGUF, so that a server which takes it as it is cannot be talked into another turn.

llama.cpp renders the template with what was said in it and then reads the whole text for special tokens:
with `<|im_end|>` in a question, a user would end the turn and forge another. It cannot be told which parts
are contents. So what goes before the template puts a character of no width into every control token of a
content, which then is read as the pieces of a text. It also sets what the model was trained with where a
client leaves it out: the system prompt, the day, the template's options, or a template of the user's own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader, TokenType

from medtune.core.errors import MedtuneError

WORD_JOINER = "\u2060"
"""Has no width and stands in no special token."""

_PLAIN_CONTENTS = """\
{%- set kept = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set plain = namespace(role=message['role'], content=message['content']) -%}
{%- for token in CONTROL_TOKENS -%}
{%- set broken = token[:1] + 'WORD_JOINER' + token[1:] -%}
{%- set plain.role = plain.role | replace(token, broken) -%}
{%- set plain.content = plain.content | replace(token, broken) -%}
{%- endfor -%}
{%- set kept.messages = kept.messages + [{'role': plain.role, 'content': plain.content}] -%}
{%- endfor -%}
{%- set messages = kept.messages -%}
{%- set tools = none -%}
"""
_SYSTEM = """\
{%- if not messages or messages[0]['role'] != 'system' -%}
{%- set messages = [{'role': 'system', 'content': SYSTEM}] + messages -%}
{%- endif -%}
"""


@dataclass(frozen=True)
class Described:
    """What a GGUF file says of itself: its template, the tokens that act, and its context in tokens."""

    template: str
    control_tokens: list[str]
    context: int


def describe_gguf(path: Path) -> Described:
    """Read the head of a GGUF file; a MedtuneError if it is none or has no chat template."""
    try:
        fields = GGUFReader(path).fields
        architecture = fields["general.architecture"].contents()
        texts = fields["tokenizer.ggml.tokens"].contents()
        kinds = fields["tokenizer.ggml.token_type"].contents()
        template = str(fields["tokenizer.chat_template"].contents())
        return Described(
            template=template,
            control_tokens=[
                text for text, kind in zip(texts, kinds, strict=True) if _acts(text, kind, template)
            ],
            context=int(fields[f"{architecture}.context_length"].contents()),
        )
    except KeyError as missing:
        raise MedtuneError(f"{path}: has no {missing}; accepted: a GGUF file with a chat template") from None
    except (ValueError, IndexError, OSError) as error:
        raise MedtuneError(f"{path}: not a whole GGUF file: {error}") from None


def _acts(text: str, kind: int, template: str) -> bool:
    """Whether a token was text in the contents of training: so is an added one that the template writes."""
    named = kind == TokenType.USER_DEFINED and text.strip() and text in template
    return kind == TokenType.CONTROL or bool(named)


def served_template(described: Described, prompt: Mapping[str, Any]) -> str:
    """The template to serve with; `prompt` is the section of that name which the model was trained with."""
    before = _PLAIN_CONTENTS.replace("CONTROL_TOKENS", _literal(described.control_tokens))
    before = before.replace("WORD_JOINER", WORD_JOINER)
    if system := (prompt.get("system") or "").strip():
        before += _SYSTEM.replace("SYSTEM", _literal(system))
    options = dict(prompt.get("template_options") or {})
    if day := prompt.get("date"):
        options["date_string"] = day
        # For a template that asks for the day itself.
        before += f"{{%- macro strftime_now(format) -%}}{{{{ {_literal(day)} }}}}{{%- endmacro -%}}\n"
    for name, value in options.items():
        before += f"{{%- set {name} = {_literal(value)} -%}}\n"
    return before + (prompt.get("template") or described.template)


def _literal(value: Any) -> str:
    """JSON, which is Jinja but for its three words, and which has nothing in it that would end a tag."""
    words = {True: "true", False: "false", None: "none"}
    if value is None or isinstance(value, bool):
        return words[value]
    return json.dumps(value, ensure_ascii=False)
