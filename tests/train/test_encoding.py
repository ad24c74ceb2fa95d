"""Rows of token ids and labels: what is learned, what does not fit, and the file that is kept of them."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.core.hashing import file_sha256
from medtune.model.chat import ChatEncoder
from medtune.model.params import PromptParams
from medtune.train.encoding import IGNORED, encode_examples, kept_examples, row_lengths
from medtune.train.lengths import describe_lengths, shortened
from medtune.train.params import FinetuneParams
from tests.conftest import EARLIER, example
from tests.model.families import build

FILE = Path("train.jsonl")


@pytest.fixture
def encoder(chatml_tokenizer: PreTrainedTokenizerFast) -> ChatEncoder:
    return ChatEncoder(chatml_tokenizer, PromptParams(system="S"))


def test_labels_stand_on_the_answer_and_its_end_alone(
    encoder: ChatEncoder, chatml_tokenizer: PreTrainedTokenizerFast, finetune_params: FinetuneParams
) -> None:
    encoded = encode_examples([example()], encoder, finetune_params, FILE)
    row = encoded.rows[0]
    labelled = [label for label in row["labels"] if label != IGNORED]
    assert chatml_tokenizer.decode(labelled) == "A high temperature.<|im_end|>"
    assert row["labels"][-len(labelled) :] == row["input_ids"][-len(labelled) :] == labelled
    assert encoded.answer_tokens == len(labelled)
    assert encoded.prompt_tokens == len(row["input_ids"]) - len(labelled)


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize("name", ["chatml_tokenizer", "llama3_tokenizer"])
def test_of_a_conversation_all_answers_are_learned_or_the_last_and_nothing_else(
    name: str, turns: str, finetune_params: FinetuneParams, request: pytest.FixtureRequest
) -> None:
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(name)
    encoder = ChatEncoder(tokenizer, PromptParams(system="S", date="26 Jul 2024"))
    params = finetune_params.model_copy(update={"assistant_turns": turns, "max_length": 2000})
    rows = encode_examples([example(messages=EARLIER), example(id="2")], encoder, params, FILE).rows
    labels, ids = rows[0]["labels"], rows[0]["input_ids"]
    assert all(label in (IGNORED, token) for label, token in zip(labels, ids, strict=True))
    end = str(tokenizer.decode([encoder.end_id]))
    said = {"all": ["No.", "Yes, of many.", "A high temperature."], "last": ["A high temperature."]}[turns]
    assert tokenizer.decode([label for label in labels if label != IGNORED]) == end.join([*said, ""])
    alone = encoder.encode(example(id="2"))
    assert rows[1]["input_ids"] == alone.input_ids
    assert rows[1]["labels"] == [IGNORED] * alone.prompt_length + alone.input_ids[alone.prompt_length :]


def test_what_is_too_long_is_told_at_once_or_left_out_and_counted(
    encoder: ChatEncoder, finetune_params: FinetuneParams, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [example(), example(id="long", answer="temperature " * 99)]
    short = finetune_params.model_copy(update={"max_length": 120})
    with pytest.raises(MedtuneError) as error:
        encode_examples([*examples, example(id="longer", question="fever " * 300)], encoder, short, FILE)
    assert str(error.value).startswith(
        "train.jsonl: 2 of 3 examples have more tokens than finetune.max_length (120), first 'long', "
        "'longer'; tokens: median "
    )
    assert "how many fit in 120: 1, " in str(error.value)
    assert str(error.value).endswith("raise it, or set finetune.too_long to drop or shorten")
    dropping = short.model_copy(update={"too_long": "drop"})
    encoded = encode_examples(examples, encoder, dropping, FILE)
    assert (len(encoded.rows), encoded.dropped) == (1, ["long"])
    assert "left out 1 of 2 examples over 120 tokens, first long" in capsys.readouterr().out
    with pytest.raises(MedtuneError, match="no example fits"):
        encode_examples(examples[1:], encoder, dropping, FILE)


def test_lengths_are_told_from_where_half_fit_to_where_all_do() -> None:
    lengths = [100] * 60 + [400] * 38 + [700, 900]
    assert describe_lengths(lengths, 512) == (
        "tokens: median 100, 90% 400, 99% 700, longest 900; how many fit in 128: 60, 256: 60, 512: 98, "
        "768: 99, 1024: 100"
    )
    assert describe_lengths([9000], 8) == (
        "tokens: median 9000, 90% 9000, 99% 9000, longest 9000; how many fit in 8: 0"
    )


CONTEXT = "Of 120 children with fièvre, 🌡 39 °C, most had a musculoskeletal cause. " * 5


@pytest.mark.parametrize("name", ["chatml_tokenizer", "llama3_tokenizer"])
def test_a_context_is_shortened_from_its_end_and_nothing_else_is(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(name)
    encoder = ChatEncoder(tokenizer, PromptParams(system="S", date="26 Jul 2024"))
    choices = ["A high temperature.", "A cold."]
    whole = example(context=CONTEXT, messages=EARLIER, choices=choices)
    bare = whole.model_copy(update={"context": None})
    most, least = len(encoder.encode(whole).input_ids), len(encoder.encode(bare).input_ids)
    ends = {*encoder.token_ends(CONTEXT.strip())}
    assert shortened(whole, encoder, most) == encoder.encode(whole)
    for max_length in range(least, most, 7):
        found = shortened(whole, encoder, max_length)
        assert found is not None
        assert max_length - 4 <= len(found.input_ids) <= max_length or len(found.input_ids) == least
        text = str(tokenizer.decode(found.input_ids))
        kept = (
            ""
            if found == encoder.encode(bare)
            else text.split(EARLIER[3]["content"])[1].partition("What is")[0]
        )
        kept = kept.rpartition("user")[2].removeprefix("<|end_header_id|>").strip()
        assert CONTEXT.startswith(kept)
        assert "\ufffd" not in kept
        assert any(CONTEXT[len(kept) : end].strip() == "" for end in ends | {0} if end >= len(kept))
        assert found == encoder.encode(whole.model_copy(update={"context": kept or None}))
    assert shortened(whole, encoder, least - 1) is None
    assert shortened(bare, encoder, least - 1) is None


def test_what_is_shortened_and_what_does_not_fit_without_context_is_counted(
    encoder: ChatEncoder, finetune_params: FinetuneParams, capsys: pytest.CaptureFixture[str]
) -> None:
    params = finetune_params.model_copy(update={"max_length": 120, "too_long": "shorten"})
    examples = [
        example(),
        example(id="cut", context=CONTEXT),
        example(id="long", context=CONTEXT, answer="temperature " * 99),
    ]
    encoded = encode_examples(examples, encoder, params, FILE)
    assert (encoded.shortened, encoded.dropped) == (["cut"], ["long"])
    assert encoded.lengths == [len(encoder.encode(one).input_ids) for one in examples]
    assert row_lengths(encoded.rows) == [len(row["input_ids"]) for row in encoded.rows]
    assert encoded.longest <= 120
    printed = capsys.readouterr()
    assert printed.out == (
        "train.jsonl: left out 1 of 3 examples over 120 tokens, first long\n"
        "train.jsonl: shortened the context of 1 of 3 examples, first cut\n"
    )
    assert printed.err == ""


def refuse() -> list[Example]:
    raise AssertionError("they are encoded already")


def test_rows_are_kept_in_a_file_for_a_run_that_goes_on(
    encoder: ChatEncoder, finetune_params: FinetuneParams, tmp_path: Path
) -> None:
    params = finetune_params.model_copy(update={"too_long": "drop"})
    examples = [
        *(example(id=str(n), answer=f"It is {n}.") for n in range(1200)),
        example(id="x", answer="x " * 999),
    ]
    plain = encode_examples(examples, encoder, params, FILE)
    kept = kept_examples(lambda: examples, encoder, params, FILE, tmp_path)
    again = kept_examples(refuse, encoder, params, FILE, tmp_path)
    for found in (kept, again):
        assert found.rows[:] == plain.rows[:]
        assert (found.dropped, found.shortened, found.lengths) == (["x"], [], plain.lengths)
        assert (found.answer_tokens, found.prompt_tokens) == (plain.answer_tokens, plain.prompt_tokens)
    assert found.rows.cache_files == [{"filename": str(tmp_path / "train/rows.arrow")}]
    assert {path.name for path in tmp_path.rglob("*")} == {"train", "rows.arrow", "notes.json"}


@pytest.mark.parametrize("damage", ["unfinished", "cut off", "missing"])
def test_rows_that_are_not_whole_are_made_anew(
    encoder: ChatEncoder, finetune_params: FinetuneParams, tmp_path: Path, damage: str
) -> None:
    examples = [example(id=str(number)) for number in range(30)]
    kept_examples(lambda: examples, encoder, finetune_params, FILE, tmp_path)
    rows, notes = tmp_path / "train/rows.arrow", tmp_path / "train/notes.json"
    digest = file_sha256(rows)
    if damage == "unfinished":
        notes.unlink()
        rows.rename(rows.with_name("tmpabc"))
    elif damage == "cut off":
        rows.write_bytes(rows.read_bytes()[:-100])
    else:
        rows.unlink()
    made = kept_examples(lambda: examples, encoder, finetune_params, FILE, tmp_path)
    assert len(made.rows) == 30
    assert file_sha256(rows) == digest
    assert {path.name for path in rows.parent.iterdir()} == {"rows.arrow", "notes.json"}


def test_counts_heed_the_order_and_the_selection_of_rows(
    encoder: ChatEncoder, finetune_params: FinetuneParams
) -> None:
    examples = [example(id=str(number), answer="fever " * (number + 1)) for number in range(5)]
    rows = encode_examples(examples, encoder, finetune_params, FILE).rows
    assert row_lengths(rows.select([3, 1])) == [len(rows[3]["labels"]), len(rows[1]["labels"])]


def test_earlier_answers_that_nobody_asks_for_are_not_learned(finetune_params: FinetuneParams) -> None:
    """Qwen 3 leaves the thinking out of earlier answers: nobody is asked for one in that way."""
    prompt = PromptParams(system="S", template_options={"enable_thinking": False})
    encoder = ChatEncoder(build("qwen 3"), prompt)
    examples, path = [example(messages=EARLIER)], Path("train.jsonl")
    with pytest.raises(MedtuneError, match=r"example '1' has 'messages', but .*assistant_turns to last"):
        encode_examples(examples, encoder, finetune_params, path)
    last = finetune_params.model_copy(update={"assistant_turns": "last"})
    assert len(encode_examples(examples, encoder, last, path).rows) == 1
