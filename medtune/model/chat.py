"""From an example to token ids: the model's chat template around contents that stay plain text.

`apply_chat_template` would turn `<|im_end|>` inside a question into the real control token, with which
a data row could end its turn and forge another. So the template is rendered once, with placeholders, and
cut at them. The fragments are encoded with special tokens, the contents (in braces) without:

    <|im_start|>system
    {system}<|im_end|>
    <|im_start|>user
    {question}<|im_end|>
    <|im_start|>assistant
    {answer}<|im_end|>

The template alone decides about a BOS token; none is added. The answer's end is the special token that
follows it (`<|im_end|>`, `<|eot_id|>`): the model is trained to write it, and generation stops there.
What the template writes after that token (a newline, in SmolLM2's) belongs to no turn and is left out, but
stands where another turn follows: the turns of an example before its question are such, and so are shots,
which stand between the system prompt and the example's own turns.

A template may ask for the day (Llama 3.2's does, and writes it into every prompt): it gets `prompt.date`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.model.params import PromptParams

_MARK = "\ue000"
_SYSTEM, _USER, _ANSWER = (f"{_MARK}{name}{_MARK}" for name in ("s", "u", "a"))

_PINNED_DAY = (
    "{% macro strftime_now(format) %}{% if pinned_day is none %}"
    "{{ raise_exception('it asks for the day: set prompt.date in params.yaml, or tokens change daily') }}"
    "{% endif %}{{ pinned_day }}{% endmacro %}\n"
)
"""Goes before a template, where it hides transformers' `strftime_now`; of this line nothing is rendered."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of prompt, answer and end token; where in them each answer stands, the last one last.

    An answer's end token is within its slice: these tokens are what an assistant says.
    """

    input_ids: list[int]
    answers: list[slice]

    @property
    def prompt_length(self) -> int:
        """Where the last answer begins."""
        return int(self.answers[-1].start)


def _placeholders(earlier: int, *, system: bool) -> list[str]:
    turns = [f"{_MARK}{number}{name}{_MARK}" for number in range(earlier) for name in ("u", "a")]
    return [*([_SYSTEM] if system else []), *turns, _USER]


class ChatEncoder:
    """Encodes examples for one tokenizer and prompt; `end_id` is the token that ends an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: PromptParams) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._cut = {
            (0, system): self._fragments(_placeholders(0, system=system)) for system in (True, False)
        }
        self.end_id = self._find_end()

    def encode_prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        """Everything before the answer; `shots` are earlier turns, with those that each of them has itself.

        A template that cannot write earlier turns as it writes the last is a MedtuneError.
        """
        return self._encode_prompt(example, shots)[0]

    def encode(self, example: Example) -> EncodedExample:
        """Prompt, answer and end token; a MedtuneError as for `encode_prompt`."""
        prompt, earlier = self._encode_prompt(example, ())
        ids = prompt + self.encode_answer(example.answer)
        return EncodedExample(ids, [*earlier, slice(len(prompt), len(ids))])

    def encode_answer(self, text: str) -> list[int]:
        """An answer and its end token."""
        return [*self._content(text), self.end_id]

    def token_ends(self, text: str) -> list[int]:
        """Where in a text its tokens end, in characters."""
        if not self._tokenizer.is_fast:
            raise MedtuneError(
                "params.yaml: finetune.too_long is 'shorten', but the model's tokenizer does not tell where "
                "a token ends in a text; accepted: error, drop"
            )
        encoded = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        return [end for _, end in encoded.offset_mapping]

    def decode(self, ids: list[int]) -> str:
        """The text of generated ids, without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _encode_prompt(self, example: Example, shots: Sequence[Example]) -> tuple[list[int], list[slice]]:
        """Everything before the answer, and where in it the earlier answers stand."""
        system = (example.system or self._prompt.system).strip()
        turns = [*chain.from_iterable([*shot.turns, shot.answer] for shot in shots), *example.turns]
        contents = [*([system] if system else []), *turns]
        fragments = self._around(example, shots, system=bool(system))
        ids, starts, ends = list(fragments[0]), [], []
        for content, fragment in zip(contents, fragments[1:], strict=True):
            starts.append(len(ids))
            ids += self._content(content)
            # The end token, with which what follows an answer begins, is its own.
            ends.append(len(ids) + 1)
            ids += fragment
        first = len(contents) - len(turns) + 1
        return ids, [slice(start, end) for start, end in list(zip(starts, ends, strict=True))[first::2]]

    def _around(self, example: Example, shots: Sequence[Example], *, system: bool) -> list[list[int]]:
        """What the template writes around the contents of shots and example, up to the answer."""
        own = len(example.earlier_turns) // 2
        if own:
            # First without the shots, so that an error names what cannot be written.
            self._around_turns(own, f"example '{example.id}' has 'messages'", system=system)
        shown = sum(len(shot.turns) + 1 for shot in shots) // 2
        return self._around_turns(own + shown, f"params.yaml: answer.shots is {len(shots)}", system=system)

    def _around_turns(self, earlier: int, cause: str, *, system: bool) -> list[list[int]]:
        """What stands around so many earlier questions with answers and the question, which has a `cause`."""
        if (earlier, system) not in self._cut:
            try:
                found = self._fragments(_placeholders(earlier, system=system))
                self._require_same_turns(found[system:])
            except MedtuneError as error:
                raise MedtuneError(f"{cause}, but {error}") from None
            self._cut[earlier, system] = found
        return self._cut[earlier, system]

    def _require_same_turns(self, fragments: list[list[int]]) -> None:
        """Refuse a template that writes an earlier answer in another way than the one it asks for.

        `fragments` begin before the first question, an answer follows on every other one.
        """
        *openings, last = fragments[1::2]
        if any(opening != last for opening in openings):
            raise MedtuneError(
                "the model's chat template opens an earlier answer in another way than the last"
            )
        if any(ending[:1] != [self.end_id] for ending in fragments[2::2]):
            raise MedtuneError(
                "the model's chat template ends an earlier answer in another way than the last"
            )

    def _fragments(self, placeholders: list[str]) -> list[list[int]]:
        """Token ids of the template before, between and after the placeholders, up to the answer."""
        text = self._render(placeholders, add_generation_prompt=True)
        fragments = []
        for placeholder in placeholders:
            before, found, text = text.partition(placeholder)
            if not found:
                raise MedtuneError("the model's chat template does not write the messages in order")
            fragments.append(before)
        if _MARK in "".join([*fragments, text]):
            raise MedtuneError("the model's chat template writes a message twice")
        return [self._template_ids(fragment) for fragment in [*fragments, text]]

    def _find_end(self) -> int:
        placeholders = [_SYSTEM, _USER]
        prompt = self._render(placeholders, add_generation_prompt=True)
        conversation = self._render([*placeholders, _ANSWER], add_generation_prompt=False)
        before, _, after = conversation.partition(_ANSWER)
        if before != prompt:
            raise MedtuneError("the model's chat template opens an answer in two ways; not supported")
        ids = self._template_ids(after)
        if not ids or ids[0] not in self._tokenizer.all_special_ids:
            raise MedtuneError("the model's chat template ends an answer without a special token")
        return ids[0]

    def _render(self, contents: list[str], *, add_generation_prompt: bool) -> str:
        roles = chain(["system"] if _SYSTEM in contents else [], cycle(["user", "assistant"]))
        messages = [
            {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
        ]
        extra: dict[str, Any] = {} if self._prompt.date is None else {"date_string": self._prompt.date}
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                chat_template=_PINNED_DAY + self._tokenizer.get_chat_template(),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                pinned_day=self._prompt.date,
                **extra,
            )
        except (ValueError, TemplateError) as error:
            raise MedtuneError(f"the model's chat template cannot be used: {error}") from None
        return str(text)

    def _template_ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False).input_ids

    def _content(self, text: str) -> list[int]:
        """Token ids of a content; `<|im_end|>` in it becomes the pieces of that text."""
        return self._tokenizer(text.strip(), add_special_tokens=False, split_special_tokens=True).input_ids
