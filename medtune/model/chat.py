"""From an example to token ids: the model's chat template around contents that stay plain text.

`apply_chat_template` would turn `<|im_end|>` inside a question into the real control token, with which
a data row could end its turn and forge another. So the template is rendered once, with placeholders, and
cut at them. Its control tokens are tokens, the contents (in braces) are text, whatever they say:

    <|im_start|>system
    {system}<|im_end|>
    <|im_start|>user
    {question}<|im_end|>
    <|im_start|>assistant
    {answer}<|im_end|>

What stands between two control tokens is encoded as one text, as it would be in the rendered template
(medtune/model/pieces.py); only an answer begins with a token of its own, as the model writes it so.
The template alone decides about a BOS token; none is added. The answer's end is the control token that
follows it (`<|im_end|>`, `<|eot_id|>`): the model is trained to write it, and generation stops there.
What the template writes after that token (a newline, in SmolLM2's) belongs to no turn and is left out, but
stands where another turn follows: the turns of an example before its question are such, and so are shots,
which stand between the system prompt and the example's own turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, zip_longest
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.model.params import PromptParams
from medtune.model.pieces import Control, Piece, Pieces
from medtune.model.template import Template

_MARK = "\ue000"
_SYSTEM, _USER, _ANSWER = (f"{_MARK}{name}{_MARK}" for name in ("s", "u", "a"))
_OTHERWISE = (
    "set prompt.template_options ({enable_thinking: false} with Qwen 3 and SmolLM3) or, as a last resort, "
    "prompt.template"
)
PROBES = (
    ("Is fever a sign?", "Yes, it is."),
    ("3.5 mg/kg of naïve β-blockers: “safe”?\n\nA  list:\n- one\n- two", "42 °C; none (yet)\nsecond line"),
    ("Что такое 発熱?", "発熱"),
)
"""Questions and answers that are encoded both ways when an encoder is made."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of prompt, answer and end token; where in them each answer stands, the last one last.

    An answer's end token is within its slice: these tokens are what an assistant says. `alike` is false if
    the template opens earlier answers in another way than the one it asks for, so that nobody asks for them.
    """

    input_ids: list[int]
    answers: list[slice]
    alike: bool = True

    @property
    def prompt_length(self) -> int:
        """Where the last answer begins."""
        return int(self.answers[-1].start)


@dataclass(frozen=True)
class _Cut:
    """What a template writes around contents, up to the answer; whether it opens all answers alike."""

    fragments: list[list[Any]]
    alike: bool


def _placeholders(earlier: int, *, system: bool) -> list[str]:
    turns = [f"{_MARK}{number}{name}{_MARK}" for number in range(earlier) for name in ("u", "a")]
    return [*([_SYSTEM] if system else []), *turns, _USER]


def _asked(question: str, answer: str = "-") -> Example:
    return Example(id="-", question=question, answer=answer, kind="-", group="-")


class ChatEncoder:
    """Encodes examples for one tokenizer and prompt; `end_id` is the token that ends an answer.

    A template or tokenizer with which that cannot be done exactly is a MedtuneError.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: PromptParams) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._template = Template(tokenizer, prompt)
        self._has_system = bool(prompt.system.strip())
        asked, said = self._render_first()
        self._pieces = Pieces(tokenizer, self._template.source + said)
        # What the template writes between the prompt and an answer, and after it, blanks that are learned.
        self._lead, self._tail, self.end_id = self._find_answer(asked, said)
        self._cut = {(0, self._has_system): self._cut_at(_placeholders(0, system=self._has_system))}
        self._opening = self._cut[0, self._has_system].fragments[-1]
        for question, answer in PROBES:
            self._require_whole(question, answer)

    @property
    def template(self) -> Template:
        """The template that the encoder writes."""
        return self._template

    def probes(self) -> list[list[int]]:
        """Prompts, as token ids, that any model can be tried on."""
        return [self.encode_prompt(_asked(question)) for question, _ in PROBES]

    def save_tokenizer(self, folder: Path) -> None:
        """Save the tokenizer with a template that writes the prompt of the training by itself."""
        own = self._tokenizer.chat_template
        self._tokenizer.chat_template = self._template.as_trained()
        try:
            self._tokenizer.save_pretrained(folder)
        finally:
            self._tokenizer.chat_template = own

    def encode_prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        """Everything before the answer; `shots` are earlier turns, with those that each of them has itself.

        A template that cannot write earlier turns is a MedtuneError.
        """
        return self._encode_prompt(example, shots).input_ids

    def encode(self, example: Example) -> EncodedExample:
        """Prompt, answer and end token; a MedtuneError as for `encode_prompt`."""
        prompt = self._encode_prompt(example, ())
        ids = prompt.input_ids + self.encode_answer(example.answer)
        return EncodedExample(ids, [*prompt.answers, slice(len(prompt.input_ids), len(ids))], prompt.alike)

    def encode_answer(self, text: str) -> list[int]:
        """An answer, as it goes on after the prompt, and its end token."""
        return self._answer_after(self._opening, text)

    def token_ends(self, text: str) -> list[int]:
        """Where in a text its tokens end, in characters."""
        return self._pieces.ends(text)

    def decode(self, ids: list[int]) -> str:
        """The text of generated ids, without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _encode_prompt(self, example: Example, shots: Sequence[Example]) -> EncodedExample:
        """Everything before the answer, and where in it the earlier answers stand."""
        system = (example.system or self._prompt.system).strip()
        turns = [*chain.from_iterable([*shot.turns, shot.answer] for shot in shots), *example.turns]
        cut = self._around(example, shots, system=bool(system))
        contents = [*([system] if system else []), *turns]
        first = len(contents) - len(turns) + 1
        before, *following = cut.fragments
        ids: list[int] = []
        answers = []
        end = None
        for number, (content, after) in enumerate(zip(contents, following, strict=True)):
            if number < first or (number - first) % 2:
                before = [*before, content.strip(), *after]
                continue
            ids += self._pieces.encode(before, end)
            said = self._answer_after(before, content)
            answers.append(slice(len(ids), len(ids) + len(said)))
            ids += said
            # The end token, with which what follows an answer begins, is the answer's.
            end, *before = after
        return EncodedExample(ids + self._pieces.encode(before, end), answers, cut.alike)

    def _answer_after(self, opening: Sequence[Piece], text: str) -> list[int]:
        """An answer and its end token; of the opening counts what stands from its last control token on."""
        controls = [number for number, piece in enumerate(opening) if isinstance(piece, Control)]
        run = opening[controls[-1] :] if controls else opening[-1:]
        said = self._pieces.continuation(run, f"{self._lead}{text.strip()}{self._tail}")
        return [*said, self.end_id]

    def _around(self, example: Example, shots: Sequence[Example], *, system: bool) -> _Cut:
        """What the template writes around the contents of shots and example, up to the answer."""
        own = len(example.earlier_turns) // 2
        if own:
            # First without the shots, so that an error names what cannot be written.
            self._around_turns(own, f"example '{example.id}' has 'messages', but ", system=system)
        shown = sum(len(shot.turns) + 1 for shot in shots) // 2
        if shown:
            cause = f"params.yaml: answer.shots is {len(shots)}, but "
        elif example.system:
            cause = f"example '{example.id}' has 'system', but "
        else:
            cause = ""
        return self._around_turns(own + shown, cause, system=system)

    def _around_turns(self, earlier: int, cause: str, *, system: bool) -> _Cut:
        """What stands around so many earlier questions with answers and the question, which has a `cause`."""
        if (earlier, system) not in self._cut:
            try:
                self._cut[earlier, system] = self._cut_at(_placeholders(earlier, system=system))
            except MedtuneError as error:
                raise MedtuneError(f"{cause}{error}") from None
        return self._cut[earlier, system]

    def _cut_at(self, placeholders: list[str]) -> _Cut:
        """What the template writes before, between and after the placeholders, up to the answer."""
        *written, text = self._around_placeholders(placeholders)
        system = placeholders[0] == _SYSTEM
        # A question, its answer, a question, and so on; the answer that is asked for follows the last.
        before_answers, after_answers = slice(system + 1, None, 2), slice(system + 2, None, 2)
        written[before_answers] = [opening.removesuffix(self._lead) for opening in written[before_answers]]
        written[after_answers] = [ending.removeprefix(self._tail) for ending in written[after_answers]]
        fragments = [self._pieces.cut(fragment) for fragment in [*written, text]]
        for ending in fragments[:-1][after_answers]:
            if not (ending and isinstance(ending[0], Control) and ending[0].id == self.end_id):
                raise MedtuneError(
                    "the model's chat template ends an earlier answer in another way than the last"
                )
        return _Cut(fragments, alike=all(opening == text for opening in written[before_answers]))

    def _around_placeholders(self, placeholders: list[str]) -> list[str]:
        """The same as text."""
        text = self._render(placeholders, system=placeholders[0] == _SYSTEM, add_generation_prompt=True)
        written = []
        for placeholder in placeholders:
            before, found, text = text.partition(placeholder)
            if not found:
                raise MedtuneError("the model's chat template does not write the messages in order")
            written.append(before)
        if _MARK in "".join([*written, text]):
            raise MedtuneError("the model's chat template writes a message twice")
        return [*written, text]

    def _render_first(self) -> tuple[str, str]:
        """As `_render_answer`, but tell a template that takes no system prompt."""
        try:
            return self._render_answer()
        except MedtuneError as error:
            if not self._has_system:
                raise
            self._has_system = False
            try:
                self._render_answer()
            except MedtuneError:
                raise error from None
            raise MedtuneError(
                f'{error}; it takes no system prompt, so set prompt.system in params.yaml to ""'
            ) from None

    def _render_answer(self) -> tuple[str, str]:
        """What the template writes when it asks for an answer, and with one."""
        system = self._has_system
        asked = _placeholders(0, system=system)
        *written, opening = self._around_placeholders(asked)
        prompt = "".join(f"{before}{content}" for before, content in zip(written, asked, strict=True))
        said = self._render([*asked, _ANSWER], system=system, add_generation_prompt=False)
        return prompt + opening, said

    def _find_answer(self, asked: str, said: str) -> tuple[str, str, int]:
        """What stands between prompt and answer, between answer and end token, and that token."""
        before, _, after = said.partition(_ANSWER)
        lead = before.removeprefix(asked)
        if not before.startswith(asked) or lead.strip():
            raise MedtuneError(
                "the model's chat template opens an answer in two ways: it asks for one with "
                f"{asked.rpartition(_MARK)[2]!r} and writes one after {before.rpartition(_MARK)[2]!r}; "
                f"{_OTHERWISE}"
            )
        pieces = self._pieces.cut(after)
        tail = pieces.pop(0) if pieces and isinstance(pieces[0], str) else ""
        end = pieces[0] if pieces else None
        if not isinstance(tail, str) or tail.strip() or not isinstance(end, Control):
            raise MedtuneError(
                f"the model's chat template ends an answer without a special token; {_OTHERWISE}"
            )
        return lead, tail, end.id

    def _require_whole(self, question: str, answer: str) -> None:
        """Refuse what does not give the tokens of the template as a whole."""
        # A template may read the system prompt (SmolLM3 looks for /no_think), so it is the real one.
        # Control tokens in it are text here and would act there: the rest of it is compared all the same.
        system = self._pieces.without_controls(self._prompt.system).strip()
        contents = [*([system] if system else []), question, answer]
        text = self._render(contents, system=bool(system), add_generation_prompt=False)
        whole = self._tokenizer(text, add_special_tokens=False).input_ids
        asked = _asked(question, answer)
        found = self.encode(asked.model_copy(update={"system": system or None})).input_ids
        if whole[: len(found)] != found:
            at = next(number for number, pair in enumerate(zip_longest(found, whole)) if len(set(pair)) == 2)
            raise MedtuneError(
                "model.source: its tokenizer or chat template gives other tokens for a conversation as a "
                f"whole than around its contents, first {self._tokenizer.decode(whole[at : at + 3])!r}; "
                "supported are tokenizers of tokenizer.json (BPE in bytes, SentencePiece) and templates that "
                "write contents as they are"
            )

    def _render(self, contents: Sequence[str], *, system: bool, add_generation_prompt: bool) -> str:
        """What the template writes for contents; `system` if the first is a system prompt."""
        roles = chain(["system"] if system else [], cycle(["user", "assistant"]))
        messages = [
            {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
        ]
        return self._template.render(messages, add_generation_prompt=add_generation_prompt)
