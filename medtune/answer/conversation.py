"""Questions and answers by turns, with one model; each answer comes piece by piece.

from medtune.answer.answerer import Answerer
from medtune.answer.conversation import Conversation

conversation = Conversation(Answerer.load("models/adapter"))
for piece in conversation.ask("What is arachnodactyly?"):
    print(piece, end="", flush=True)
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from transformers import Cache, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from medtune.answer.answerer import Answerer
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example, Message
from medtune.model.base import context_of, end_ids
from medtune.model.chat import ChatEncoder

HALF_A_CHARACTER = "\ufffd"
"""What is decoded of a character whose last token has not come yet."""


@dataclass
class Conversation:
    """What was said so far, with `context`, if any, before the first question.

    `truncated` tells whether the last answer was cut off at `answer.max_new_tokens`.
    """

    answerer: Answerer
    context: str | None = None
    truncated: bool = field(default=False, init=False)
    _said: list[Message] = field(default_factory=list, init=False)
    _memory: "Memory" = field(default_factory=lambda: Memory(), init=False)

    def ask(self, question: str) -> Generator[str, None, None]:
        """The pieces of the answer: together, to a first question, the text of `Answerer.ask`.

        A conversation that the model's context has no room for is a MedtuneError and stays as it was. Of an
        answer that is not read to its end is remembered what was read; a question that got no word is not.
        """
        example = self._example(question)
        prompt = self.answerer.encoder.encode_prompt(example)
        self._require_room(len(prompt))
        return self._answer(example.user_text, prompt)

    def reset(self) -> None:
        """Begin anew."""
        self._said.clear()

    def _example(self, question: str) -> Example:
        # Only what the prompt is made of matters here; an example cannot be without the rest.
        return Example(
            id="-",
            question=question,
            context=None if self._said else self.context,
            messages=list(self._said) or None,
            answer="-",
            kind="-",
            group="-",
        )

    def _require_room(self, prompt: int) -> None:
        tokens = prompt + self.answerer.params.max_new_tokens
        if tokens > (context := context_of(self.answerer.model.config)):
            what = "the conversation" if self._said else "the question"
            raise MedtuneError(
                f"{what} takes {tokens} tokens with its answer, and the model's context has {context}: "
                + ("begin a new one, or ask more briefly" if self._said else "ask more briefly")
            )

    def _answer(self, asked: str, prompt: Sequence[int]) -> Generator[str, None, None]:
        answerer = self.answerer
        ids: list[int] = []
        text = ""
        self.truncated = False
        ends = {answerer.encoder.end_id, *end_ids(answerer.model)}
        tokens = stream_tokens(answerer.model, prompt, ends, self._memory)
        try:
            for piece in _pieces(answerer.encoder, tokens, answerer.params.max_new_tokens, ids):
                text += piece
                yield piece
            self.truncated = len(ids) == answerer.params.max_new_tokens
        finally:
            if text.strip():
                self._said += [
                    Message(role="user", content=asked),
                    Message(role="assistant", content=text),
                ]


@dataclass
class Memory:
    """Keys and values of tokens that ran through a model, so that what was said runs through it once."""

    ids: list[int] = field(default_factory=list)
    cache: Cache | None = None

    def take(self, prompt: Sequence[int], config: PretrainedConfig) -> tuple[Cache, list[int]]:
        """What is known of the beginning of `prompt`, and the tokens left to run: at least one.

        The memory is empty until `put` gives it back.
        """
        cache, ids = self.cache, self.ids
        self.cache, self.ids = None, []
        same = _length_of_same(ids, prompt[:-1])
        # A window that slides has dropped what came before it.
        if cache is None or (same < len(ids) and any(type(x) is not DynamicLayer for x in cache.layers)):
            return DynamicCache(config=config), list(prompt)
        if same < len(ids):
            cache.crop(same - len(ids))
        return cache, list(prompt[same:])

    def put(self, cache: Cache, ids: Sequence[int]) -> None:
        """Keep what a pass leaves: the cache of these tokens."""
        self.cache, self.ids = cache, list(ids)


def stream_tokens(
    model: PreTrainedModel, prompt: Sequence[int], end_ids: Collection[int], memory: Memory
) -> Iterator[int]:
    """Go on from a prompt greedily, without an end but one of `end_ids`, which is not among the tokens."""
    ids = list(prompt)
    while True:
        # A pass that Ctrl-C stops leaves a cache of which some layers have the tokens and others not.
        cache, new = memory.take(ids, model.config)
        # As a caller takes tokens one by one, the mode must not outlast the pass.
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor([new], device=model.device),
                position_ids=torch.arange(len(ids) - len(new), len(ids), device=model.device).unsqueeze(0),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        memory.put(cache, ids)
        token = int(logits[0, -1].argmax())
        if token in end_ids:
            return
        yield token
        ids.append(token)


def _pieces(encoder: ChatEncoder, tokens: Iterator[int], most: int, ids: list[int]) -> Iterator[str]:
    """The text of up to `most` tokens as they come, which are added to `ids`."""
    shown = before = ""
    for token in tokens:
        ids.append(token)
        text = encoder.decode(ids)
        # A token may change the text of the one before: the rest of a character, or no space before a comma.
        settled = text[: _length_of_same(before, text)].rstrip(HALF_A_CHARACTER)
        if len(settled) > len(shown):
            yield settled[len(shown) :]
            shown = settled
        before = text
        if len(ids) == most:
            break
    if before[len(shown) :]:
        yield before[len(shown) :]


def _length_of_same(one: Sequence[object], other: Sequence[object]) -> int:
    """How much two texts, or rows of tokens, have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
