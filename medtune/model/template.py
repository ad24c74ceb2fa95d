"""A model's chat template: written with the prompt of `params.yaml`, and saved so that others write the same.

A template may ask for the day (Llama 3.2's does, and writes it into every prompt): it gets `prompt.date`.
It may have options (Qwen 3's `enable_thinking`): it gets `prompt.template_options`. `prompt.template`
replaces it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, meta
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from medtune.core.errors import MedtuneError, nearest
from medtune.model.params import PromptParams

_TOKENS = frozenset(f"{name}_token" for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"))
GIVEN = _TOKENS | {"messages", "add_generation_prompt", "tools", "documents", "date_string", "pinned_day"}
"""What a template gets besides its options."""

_NO_DAY = "it asks for the day: set prompt.date in params.yaml, or tokens change daily"
_PINNED_DAY = (
    "{% macro strftime_now(format) %}{% if pinned_day is none %}"
    f"{{{{ raise_exception('{_NO_DAY}') }}}}"
    "{% endif %}{{ pinned_day }}{% endmacro %}\n"
)
"""Goes before a template, where it hides transformers' `strftime_now`; of this line nothing is rendered."""


class Template:
    """The template of a tokenizer, or the one that `prompt.template` puts in its place.

    Options that it does not read are a MedtuneError, as is a tokenizer without a template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: PromptParams) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._name = "params.yaml: prompt.template" if prompt.template else "the model's chat template"
        if prompt.template and "{" not in prompt.template:
            raise MedtuneError(
                f"{self._name} is '{prompt.template}', which writes no message; accepted: the text of a "
                "template in Jinja, not the name of a file"
            )
        try:
            self.source = prompt.template or str(tokenizer.get_chat_template())
            self._require_options()
        except (ValueError, TemplateError) as error:
            raise MedtuneError(f"{self._name} cannot be used: {error}") from None

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """What the template writes for messages with `role` and `content`; a MedtuneError if it refuses."""
        extra: dict[str, Any] = dict(self._prompt.template_options)
        if self._prompt.date is not None:
            extra["date_string"] = self._prompt.date
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=_PINNED_DAY + self.source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                pinned_day=self._prompt.date,
                **extra,
            )
        except (ValueError, TemplateError) as error:
            raise MedtuneError(f"{self._name} cannot be used: {error}") from None
        return str(text)

    def as_trained(self) -> str:
        """The template with day, options and system prompt written in, for programs that know no params.yaml.

        A conversation that begins with a system prompt of its own keeps that one.
        """
        given: dict[str, Any] = dict(self._prompt.template_options)
        if self._prompt.date is not None:
            given["date_string"] = self._prompt.date
        read = self._reads()
        lines = [
            f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
            for name, value in sorted(given.items())
            if name in read
        ]
        if "strftime_now" in self.source:
            day = _literal(self._prompt.date)
            lines.append(f"{{%- macro strftime_now(format) %}}{{{{ {day} }}}}{{%- endmacro %}}")
        if system := self._prompt.system.strip():
            lines.append(
                "{%- if not messages or messages[0]['role'] != 'system' %}{%- set messages = "
                f"[{{'role': 'system', 'content': {_literal(system)}}}] + messages %}}{{%- endif %}}"
            )
        # A line's end after `%}` is not rendered, and the next line's `{%-` takes blanks before it.
        return "".join(f"{line}\n" for line in lines) + self.source

    def _reads(self) -> set[str]:
        """The names of all variables that the template takes from outside."""
        # transformers' own environment knows tags that Jinja does not, such as `{% generation %}`.
        environment = _compile_jinja_template(self.source).environment
        return meta.find_undeclared_variables(environment.parse(self.source))

    def _require_options(self) -> None:
        read = self._reads() - GIVEN
        for name in self._prompt.template_options:
            if name not in read:
                raise MedtuneError(
                    f"params.yaml: prompt.template_options has '{name}', which the model's chat template "
                    f"does not read; {nearest(name, sorted(read)) if read else 'accepted: {}'}"
                )


def _literal(value: object) -> str:
    """A value as Jinja writes it, in its own characters: an escape of two halves would be two letters."""
    return json.dumps(value, ensure_ascii=False)
