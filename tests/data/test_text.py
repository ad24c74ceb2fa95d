"""Text is kept with its meaning, in one form, and what is no text is refused."""

import math
import unicodedata

import pytest

from medtune.data.faults import LONGEST_DETAIL, Fault
from medtune.data.text import joined, required, text_of


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("  plain  ", "plain"),
        ("a\r\nb\rc\n", "a\nb\nc"),
        ("a\tb", "a\tb"),
        ("a\x00b\x07c\x1bd", "abcd"),
        ("\ufeffBOM in\ufeffside", "BOM inside"),
        ("soft\u00adhyphen, zero\u200bwidth, word\u2060joiner", "softhyphen, zerowidth, wordjoiner"),
        ("Sjo\u0308gren", "Sj\u00f6gren"),
        ("x\u00a0mg", "x\u00a0mg"),
        ("10\u207b\u00b3 mol, H\u2082O", "10\u207b\u00b3 mol, H\u2082O"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("\U0001f489", "\U0001f489"),
        (5, "5"),
        (0, "0"),
        (-1.5, "-1.5"),
        (3.0, "3"),
        (1e300, "1e+300"),
        (True, "true"),
        (False, "false"),
        (123456789012345678901234567890, "123456789012345678901234567890"),
    ],
)
def test_what_is_seen_is_kept_and_what_is_not_goes(value: object, kept: str) -> None:
    assert text_of(value, "question") == kept
    assert required(value, "question") == kept


@pytest.mark.parametrize(
    "value", [None, "", " \n\t", "\u200b\u2060\ufeff", "\u200d\u200c \u00ad", math.nan, "nan", "NaN", "<NA>"]
)
def test_nothing_in_whatever_guise_is_empty(value: object) -> None:
    assert text_of(value, "answer") is None
    with pytest.raises(Fault, match=r"answer is (missing|empty); accepted: text"):
        required(value, "answer")


@pytest.mark.parametrize("value", ["none", "None", "null", "NA", "N/A", "-", "0", "no"])
def test_what_may_be_an_answer_is_not_taken_for_an_empty_cell(value: str) -> None:
    assert text_of(value, "answer") == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": 1, "b": 2}, "question is a mapping of a, b; accepted: text"),
        ({}, "question is an empty mapping"),
        (["a"], "question is a list; accepted: text"),
        (b"a", "question is of the type bytes"),
        (math.inf, "question is too large a number (inf)"),
        (10**200, "question is too large a number (over 100 digits)"),
        ("half \ud800 of one", "question has half a character (\\ud800)"),
    ],
)
def test_what_is_no_text_is_refused_and_named(value: object, told: str) -> None:
    with pytest.raises(Fault) as fault:
        text_of(value, "question")
    assert told in fault.value.detail and fault.value.reason == "not_text"


def test_a_list_of_texts_is_paragraphs_where_it_may_be_one() -> None:
    assert joined(["one", None, " ", "two "], "context") == "one\ntwo"
    assert joined([], "context") is None
    assert joined("one", "context") == "one"
    with pytest.raises(Fault, match="context, part 2, is a list; accepted: text"):
        joined(["one", ["two"]], "context")


def test_text_is_the_same_however_often_it_is_cleaned() -> None:
    for code in range(0x3100):
        kept = text_of(f"a{chr(code)}b", "x")
        assert kept is not None and text_of(kept, "x") == kept and unicodedata.is_normalized("NFC", kept)


def test_a_fault_is_one_line_that_can_be_printed_however_long_what_it_quotes_is() -> None:
    fault = Fault("broken", f"answer is 'first\nsecond\u2028third \ud800 {'x' * 10_000} end'")
    assert fault.detail.startswith("answer is 'first second third \\ud800 xxx")
    assert fault.detail.endswith("xxx end'") and len(fault.detail) <= LONGEST_DETAIL + 10
    assert len(fault.detail.splitlines()) == 1 and fault.detail.encode()
