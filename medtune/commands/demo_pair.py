"""The untuned and the tuned model, asked the same question in the same way, for `medtune demo`.

Nothing is held between two pieces of an answer: whoever stops reading leaves nothing locked behind.
"""

from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from peft import PeftModel

from medtune.answer.answerer import Answerer
from medtune.answer.conversation import Conversation
from medtune.answer.params import Settings
from medtune.core.errors import MedtuneError
from medtune.model.adapter import check_adapter
from medtune.model.origin import Origin
from medtune.model.params import PromptParams


@dataclass(frozen=True)
class Said:
    """What both have said so far, and what is to be known of it."""

    base: str
    tuned: str
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """Both models, and the prompt that they are asked with; an adapter from elsewhere has no `origin`."""

    base: Answerer
    tuned: Answerer
    prompt: PromptParams
    origin: Origin | None

    @classmethod
    def load(cls, adapter: Path) -> "Pair":
        """The adapter of a folder and its base, both asked with the prompt that the adapter was trained with.

        An adapter that answers merged (in float32) is a model of its own beside the base: switched off, it
        would leave other last bits than `medtune ask` has. Any other is switched off where the base answers.
        """
        settings = Settings.load()
        origin = check_adapter(adapter, settings.model, settings.compute)
        prompt = settings.prompt if origin is None else origin.prompt
        tuned = Answerer.load(adapter)
        if isinstance(tuned.model, PeftModel):
            on, off = switched(tuned.model)
            return cls(replace(tuned, model=off), replace(tuned, model=on), prompt, origin)
        return cls(Answerer.build(replace(settings, prompt=prompt), None), tuned, prompt, origin)

    def ask(self, question: str) -> Generator[Said, None, None]:
        """What both say, growing; a question that cannot be asked is a MedtuneError at once."""
        _require_text(question)
        names = ("base", "tuned")
        conversations = {name: Conversation(getattr(self, name)) for name in names}
        streams = {name: one.ask(question) for name, one in conversations.items()}
        return self._in_turns(conversations, streams)

    def _in_turns(
        self, conversations: dict[str, Conversation], streams: dict[str, Generator[str, None, None]]
    ) -> Generator[Said, None, None]:
        texts = dict.fromkeys(streams, "")
        with ExitStack() as stack:
            going = {name: stack.enter_context(closing(stream)) for name, stream in streams.items()}
            while going:
                for name, stream in list(going.items()):
                    piece = next(stream, None)
                    if piece is None:
                        del going[name]
                    else:
                        texts[name] += piece
                        yield Said(**texts)
        yield Said(**texts, note=self._cut_off(conversations))

    def _cut_off(self, conversations: dict[str, Conversation]) -> str:
        called = {"base": "untuned", "tuned": "tuned"}
        cut = [called[name] for name, one in conversations.items() if one.truncated]
        if not cut:
            return ""
        most = self.tuned.params.max_new_tokens
        which = f"the answer of the {cut[0]} model" if len(cut) == 1 else "both answers"
        return f"Cut off at {most} tokens: {which} (answer.max_new_tokens in params.yaml)."


def switched(model: PeftModel) -> tuple[Any, Any]:
    """A model with its adapter, and the same one without: two faces of one set of weights."""
    lock = Lock()
    return _Face(model, lock, adapter=True), _Face(model, lock, adapter=False)


class _Face:
    """One way to run a model whose adapter can be switched off; one pass at a time, whichever face it is."""

    def __init__(self, model: PeftModel, lock: Lock, *, adapter: bool) -> None:
        self._model, self._lock, self._adapter = model, lock, adapter

    def __call__(self, **inputs: Any) -> Any:
        with self._lock:
            if self._adapter:
                return self._model(**inputs)
            with self._model.disable_adapter():
                return self._model(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _require_text(question: str) -> None:
    if not question.strip():
        raise MedtuneError("the question is empty")
    try:
        question.encode("utf-8")
    except UnicodeEncodeError:
        raise MedtuneError("the question holds half a character (a lone surrogate): it is no text") from None
