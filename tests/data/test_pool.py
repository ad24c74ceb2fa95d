"""The pool gives back what was put in, and makes texts normal the same way by either of its two ways."""

import random

import pytest

from medtune.data.pool import _TOKEN, Origin, Pool, _plain_tokens, normalise
from tests.conftest import example


def test_what_is_read_between_two_examples_moves_neither() -> None:
    pool, put = Pool(1), []
    for i in range(50):
        put.append(example(id=str(i), question=f"Méni\u00e8re {i} \u2028?", answer="x" * i + "y"))
        assert pool.append(put[-1], Origin(0, f"ménière.csv, line {i}")) == i
        if i % 7 == 0:
            assert pool[i // 2] == put[i // 2]
    assert [pool[i] for i in range(50)] == put
    assert [pool.place(i) for i in range(50)] == [f"ménière.csv, line {i}" for i in range(50)]


def test_plain_text_has_the_same_tokens_in_less_time() -> None:
    draw = random.Random(1)
    some = 0
    for _ in range(20_000):
        text = "".join(draw.choices("ab1_ -+*/<>=.,'\n\t\x1f~", k=draw.randint(0, 12)))
        if found := _plain_tokens(text):
            some += 1
            assert found == _TOKEN.findall(text), repr(text)
    assert some > 2000


def test_normal_text_keeps_signs_of_numbers_and_symbols_that_are_all_there_is() -> None:
    assert normalise("The  Ca-Channel, well-known: -5 and <3!") == "ca channel well known - 5 and < 3"
    assert normalise("\u22655 mg") == "\u2265 5 mg"
    assert normalise(" + ") == "+"
    assert normalise("A") == "a"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What if BP < 90?", "What if BP > 90?"),
        ("What if it falls (<90)?", "What if it falls (>90)?"),
        ("HER2+ cancer?", "HER2- cancer?"),
        ("What is 5 + 3?", "What is 5 - 3?"),
        ("5*3", "5+3"),
        ("\u0926\u093f\u0928", "\u0926\u093e\u0928"),
        ("\u0e44\u0e21\u0e48", "\u0e44\u0e21\u0e49"),
    ],
    ids=["below, above", "in brackets", "at the end of a word", "sums", "products", "Hindi", "Thai"],
)
def test_another_sign_or_vowel_makes_another_question(one: str, other: str) -> None:
    """They were taken for one, and left out as repeats or contradictions."""
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("COVID-19", "covid 19"),
        ("beta-blocker", "Beta blocker"),
        ("5-10 mg", "5 10 mg"),
        ("so - it", "so it"),
    ],
)
def test_hyphens_and_dashes_make_none(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
