"""Text to token ids as a template's text would be encoded as a whole, but for control tokens in contents.

Between two control tokens a tokenizer sees one run of text. Where such a run begins or ends inside a content,
what the template writes beside it decides about tokens: SentencePiece marks the first word of a run, and a
newline may belong to the next word. So runs are encoded, never halves of them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from medtune.core.errors import MedtuneError

_BEFORE = "\ue001before\ue001"
"""Stands before a run that follows a control token: a token that is cut off again."""
_KEPT_RUNS = 1024
"""Encoded runs that are kept: what the template writes and the system prompt recur in every example."""


@dataclass(frozen=True)
class Control:
    """A token that only the template may write; it may take blanks beside it away, as Phi 3's do."""

    id: int
    takes_before: bool
    takes_after: bool


Piece = str | Control
_ANY = Control(-1, takes_before=False, takes_after=False)


class Pieces:
    """Cuts what a template writes into text and control tokens, and encodes both.

    Control tokens are the tokenizer's special ones, named as such or not (`<|eot_id|>` of Llama 3 is not),
    and whichever of its added tokens the template writes (`<think>`). In a content they are text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: str) -> None:
        """`written` is all that the template may write: its source and what it rendered."""
        if not tokenizer.is_fast:
            raise MedtuneError(
                "model.source: its tokenizer is none of the library tokenizers; accepted: a model with a "
                "tokenizer.json that transformers reads as it is"
            )
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        added = state["added_tokens"]
        for token in added:
            # A special token is taken for text if the tokenizer is told so; others never are.
            # Blanks are no control token, though Gemma has added some.
            named = token["content"].strip() and token["content"] in written
            token["special"] = token["special"] or bool(named)
        self.controls = {
            token["content"]: Control(token["id"], token["lstrip"], token["rstrip"])
            for token in added
            if token["special"]
        }
        self._names = re.compile(
            "|".join(re.escape(name) for name in sorted(self.controls, key=len, reverse=True)) or r"(?!)"
        )
        before = {"content": _BEFORE, "special": False, "normalized": False}
        flags = {"single_word": False, "lstrip": False, "rstrip": False}
        state["added_tokens"] = [*added, {"id": tokenizer.vocab_size + len(added), **before, **flags}]
        state["truncation"] = state["padding"] = None
        self._plain = Tokenizer.from_str(json.dumps(state))
        self._plain.encode_special_tokens = True
        self._before = self._plain.token_to_id(_BEFORE)
        self._control_ids = {control.id for control in self.controls.values()}
        self._run = lru_cache(maxsize=_KEPT_RUNS)(self._encode_run)

    def cut(self, text: str) -> list[Piece]:
        """What the template writes, as text and control tokens; no text is empty."""
        pieces: list[Piece] = []
        end = 0
        for found in self._names.finditer(text):
            pieces += [text[end : found.start()], self.controls[found.group()]]
            end = found.end()
        return [piece for piece in [*pieces, text[end:]] if piece != ""]

    def without_controls(self, text: str) -> str:
        """A text with something else in place of every control token."""
        return self._names.sub("-", text)

    def encode(self, pieces: Iterable[Piece], after: Control | None) -> list[int]:
        """Token ids of pieces, texts beside each other as one, `after` a control token or, None, at first."""
        ids: list[int] = []
        run = ""
        for piece in pieces:
            if isinstance(piece, str):
                run += piece
                continue
            ids += self._between(run, after, piece)
            ids.append(piece.id)
            run, after = "", piece
        return [*ids, *self._between(run, after, None)]

    def continuation(self, opening: Sequence[Piece], text: str) -> list[int]:
        """Token ids of a text that goes on where `opening` ends, without those of the opening.

        Where both would share a token, the text begins with one of its own: an answer is written after its
        prompt, token by token.
        """
        beginning = self.encode(opening, _ANY)
        whole = self.encode([*opening, text], _ANY)
        if whole[: len(beginning)] == beginning:
            return whole[len(beginning) :]
        return self.encode([text], _ANY)

    def ends(self, text: str) -> list[int]:
        """Where in a text its tokens end, in characters."""
        return [end for _, end in self._plain.encode(text, add_special_tokens=False).offsets]

    def _between(self, run: str, before: Control | None, after: Control | None) -> Sequence[int]:
        if before is not None and before.takes_after:
            run = run.lstrip()
        if after is not None and after.takes_before:
            run = run.rstrip()
        return self._run(run, before is None) if run else ()

    def _encode_run(self, text: str, first: bool) -> tuple[int, ...]:
        ids = self._plain.encode(text if first else _BEFORE + text, add_special_tokens=False).ids
        ids = ids if first else ids[1:]
        if self._before in ids or not self._control_ids.isdisjoint(ids):
            raise MedtuneError(f"a text has a control token that the tokenizer reads as such: {text[:60]!r}")
        return tuple(ids)
