"""`medtune show`: prepared examples as the model sees them, token by token, and where the loss counts.

    «<|im_start|>»user│↵
    │What│ is│ fever│?«<|im_end|>»↵
    «<|im_start|>»assistant│↵
    ⟦A│ high│ temperature│.│«<|im_end|>»⟧◂

Only what the tokenizer made a special token stands in «»: `<|im_end|>` in the data is the pieces of that
text. It takes the tokenizer alone, no weights.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from medtune.commands.tables import one_line
from medtune.core.errors import MedtuneError, nearest
from medtune.core.examples import Example, read_jsonl
from medtune.data.grouping import SPLITS
from medtune.model.base import base_folder, load_tokenizer
from medtune.model.chat import ChatEncoder, EncodedExample
from medtune.model.files import check_files, is_here
from medtune.model.params import ModelParams, PromptParams
from medtune.train.encoding import IGNORED, labels_of
from medtune.train.lengths import shortened
from medtune.train.params import FinetuneParams

PREPARED = Path("data/prepared")
UNFINISHED = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to."""
MARKS = (
    "« » a special token   ⟦ ⟧ the loss counts   ◂ an answer ends   │ between tokens   ↵ a line break   "
    "⋯ a part of the next character\nwhat is one of these signs, or no character to print, has a \\ before it"
)
_TO_ESCAPE = re.compile(r"[\\«»⟦⟧◂│↵⋯\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_LEARNED, _SPECIAL, _FAINT, _PLAIN = "\x1b[4;32m", "\x1b[35m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class Token:
    """A token with its text ("" if its character ends in a later one), and what it is there for."""

    id: int
    text: str
    special: bool
    learned: bool
    ends_answer: bool


@dataclass(frozen=True)
class Shown:
    """An example as the model sees it; `length` is that of its whole, in tokens, `max_length` the most.

    `as_text` are special tokens that stand in the data, and so are none.
    """

    id: str
    split: str
    kind: str
    length: int
    max_length: int
    too_long: str
    tokens: list[Token]
    as_text: list[str]

    @property
    def learned(self) -> int:
        """How many tokens the loss counts."""
        return sum(token.learned for token in self.tokens)

    @property
    def fits(self) -> bool:
        """Whether training takes it, shortened or not."""
        return len(self.tokens) <= self.max_length


def show_examples(name: str | None, kind: str | None, split: str | None, count: int) -> list[Shown]:
    """The example called `name`, or the first ones of a kind and split, by the params.yaml in this folder.

    Without a split those of training are meant; a name is looked for in all. A MedtuneError says what is not
    there, and what is near.
    """
    if count < 1:
        raise MedtuneError(f"-n is {count}: must be 1 or more")
    if split not in (None, *SPLITS):
        raise MedtuneError(f"--split is '{split}'; {nearest(split, [*SPLITS])}")
    if name is not None and kind is not None:
        raise MedtuneError(f"'{name}' is one example, whatever its kind: leave out --kind")
    if name is None:
        chosen = _first(kind, split or SPLITS[0], count)
    else:
        chosen = [_named(name, [split] if split else SPLITS)]
    finetune, tokenizer = FinetuneParams.load(), _tokenizer(ModelParams.load())
    encoder = ChatEncoder(tokenizer, PromptParams.load())
    return [shown(example, place, encoder, tokenizer, finetune) for place, example in chosen]


def shown(
    example: Example,
    split: str,
    encoder: ChatEncoder,
    tokenizer: PreTrainedTokenizerBase,
    params: FinetuneParams,
) -> Shown:
    """An example of a split, with its context as short as training has it."""
    whole = encoder.encode(example)
    may_shorten = params.too_long == "shorten" and split != "test"
    encoded = (shortened(example, encoder, params.max_length) if may_shorten else None) or whole
    tokens = _tokens(encoded, tokenizer, params)
    texts = "".join("\0" if token.special else token.text for token in tokens).split("\0")
    special = [str(tokenizer.decode([one])) for one in sorted(_special_ids(tokenizer))]
    return Shown(
        id=example.id,
        split=split,
        kind=example.kind,
        length=len(whole.input_ids),
        max_length=params.max_length,
        too_long=params.too_long,
        tokens=tokens,
        as_text=[token for token in special if any(token in text for text in texts)],
    )


def describe_shown(found: Sequence[Shown], *, colour: bool) -> str:
    """The examples one below the other, and what the signs mean; with `colour` for a terminal."""
    parts = [f"{_heading(one)}\n\n{''.join(_marked(one.tokens, colour=colour))}\n" for one in found]
    marks = MARKS.replace("⟦ ⟧", f"{_LEARNED}underlined{_PLAIN}") if colour else MARKS
    return "\n".join([*parts, marks])


def shown_as_json(found: Sequence[Shown]) -> str:
    """The same for programs: a list of examples, with every token."""
    return json.dumps(
        [asdict(one) | {"learned": one.learned, "fits": one.fits} for one in found],
        indent=2,
        ensure_ascii=False,
    )


def takes_colour(stream: TextIO) -> bool:
    """Whether it is a terminal that shows colours, and nobody has asked for none (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _first(kind: str | None, split: str, count: int) -> list[tuple[str, Example]]:
    examples = _read(split)
    if kind is not None:
        kinds = sorted({example.kind for example in examples})
        if kind not in kinds:
            raise MedtuneError(f"{_file(split)}: no example is of kind '{kind}'; {nearest(kind, kinds)}")
        examples = [example for example in examples if example.kind == kind]
    return [(split, example) for example in examples[:count]]


def _named(name: str, splits: Sequence[str]) -> tuple[str, Example]:
    examples = [(split, example) for split in splits for example in _read(split)]
    for split, example in examples:
        if example.id == name:
            return split, example
    close = get_close_matches(name, [example.id for _, example in examples], n=1, cutoff=0)
    raise MedtuneError(f"no example of {', '.join(splits)} is called '{name}'; the nearest is '{close[0]}'")


def _file(split: str) -> Path:
    return PREPARED / f"{split}.jsonl"


def _read(split: str) -> list[Example]:
    if not _file(split).is_file():
        raise MedtuneError(
            f"{_file(split)}: not there; run `dvc repro prepare` to make it or `dvc pull` to fetch it"
        )
    return read_jsonl(_file(split))


def _tokenizer(model: ModelParams) -> PreTrainedTokenizerBase:
    """The base model's; of one that is not here yet no more than the tokenizer's files are fetched."""
    check_files(model)
    if is_here(model):
        return load_tokenizer(base_folder(model))
    return AutoTokenizer.from_pretrained(model.source, revision=model.revision, trust_remote_code=False)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _tokens(
    encoded: EncodedExample, tokenizer: PreTrainedTokenizerBase, params: FinetuneParams
) -> list[Token]:
    special = _special_ids(tokenizer)
    ends = {answer.stop - 1 for answer in encoded.answers}
    labels = labels_of(encoded, params)
    return [
        Token(number, text, number in special, labels[place] != IGNORED, place in ends)
        for place, (number, text) in enumerate(
            zip(encoded.input_ids, _texts(encoded.input_ids, tokenizer, special), strict=True)
        )
    ]


def _texts(ids: list[int], tokenizer: PreTrainedTokenizerBase, special: set[int]) -> Iterator[str]:
    """The text of each token, "" where its character ends in a later one: joined they are what is decoded."""
    before, start = 0, 0
    for end in range(1, len(ids) + 1):
        # Decoded with what stands before it: some tokenizers write no space before the first token of a text.
        text = _decoded(ids[before:end], tokenizer)[len(_decoded(ids[before:start], tokenizer)) :]
        goes_on = end < len(ids) and ids[end] not in special
        if text.endswith(UNFINISHED) and goes_on:
            yield ""
            continue
        yield text
        before, start = start, end


def _decoded(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _heading(one: Shown) -> str:
    lines = [
        f"{one_line(one.id)} ({one.split}, {one_line(one.kind)}): {len(one.tokens)} tokens, the loss counts "
        f"{one.learned}; {_fit(one)}"
    ]
    if one.split == "test":
        lines.append("not trained on: marked is what would be learned of it")
    if one.as_text:
        lines.append(
            f"stands in the data, as text and no special token: {' '.join(map(_escaped, one.as_text))}"
        )
    return "\n".join(lines)


def _fit(one: Shown) -> str:
    most = f"finetune.max_length ({one.max_length})"
    if one.fits and one.length > len(one.tokens):
        return f"its context is shortened to fit in {most}: whole it has {one.length}"
    if one.fits:
        return f"it fits in {most}"
    if one.split == "test":
        return f"more than {most}, which counts for training alone"
    return f"more than {most}: training {'refuses it' if one.too_long == 'error' else 'leaves it out'}"


def _marked(tokens: Sequence[Token], *, colour: bool) -> Iterator[str]:
    for number, token in enumerate(tokens):
        last = tokens[number - 1] if number else None
        following = tokens[number + 1] if number + 1 < len(tokens) else None
        starts = token.learned and not (last and last.learned)
        stops = token.learned and not (following and following.learned)
        if last and not (starts or last.special or token.special):
            yield f"{_FAINT}│{_PLAIN}" if colour else "│"
        text = f"«{_escaped(token.text)}»" if token.special else _escaped(token.text) or "⋯"
        if colour:
            yield _coloured(text, token)
        else:
            yield f"{'⟦' * starts}{text}{'⟧' * stops}"
        yield "◂" * token.ends_answer


def _coloured(text: str, token: Token) -> str:
    style = _LEARNED * token.learned + _SPECIAL * (token.special and not token.learned)
    return f"{style}{text}{_PLAIN}" if style else text


def _escaped(text: str) -> str:
    """A text in which nothing acts on a terminal or passes for a mark; a line break is marked and made."""
    return _TO_ESCAPE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\n":
        return "↵\n"
    if character.isprintable():
        return f"\\{character}"
    return character.encode("unicode_escape").decode()
