"""Spellings of one thing are equal, and what only looks alike is not."""

import re

import pytest

from medtune.evaluate.wording import members, words
from tests.conftest import ROOT

EXAMPLES = re.findall(
    "`([^`|]+)` ([=≠]) `([^`|]+)`", (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
)

SAME = [
    ("10mg", "10 mg"),
    ("5.0 mg", "5 mg"),
    (".5 mg", "0.5 mg"),
    ("1·5 mg", "1.5 mg"),
    ("1,000 mg", "1000 mg"),
    ("1,234,567", "1234567"),
    ("12\u202f345", "12345"),
    ("5 %", "5%"),
    ("5 percent", "5%"),
    ("5 per cent", "5%"),
    ("5 mcg", "5 μg"),
    ("5 µg", "5 μg"),
    ("5 micrograms", "5 ug"),
    ("5 µL", "5 uL"),
    ("less than 5", "<5"),
    ("at least 65 years", "≥ 65 years"),
    ("about 5", "~5"),
    ("0,05", "0.05"),
    ("38 °C", "38°C"),
    ("38 degrees Celsius", "38 °C"),
    ("5 - 10 mg", "5–10 mg"),
    ("5 to 10 mg", "5-10 mg"),
    ("−5", "-5"),
    ("+0.5", "0.5"),
    ("≥ 5", ">=5"),
    ("+/- 3", "±3"),
    ("10³", "10^3"),
    ("10⁻⁵", "10^-5"),
    ("m²", "m2"),
    ("CO₂", "CO2"),
    ("Ca²⁺", "Ca2+"),
    ("HER2+", "HER2 positive"),
    ("Rh−", "Rh-"),
    ("Rh -", "Rh negative"),
    ("Rh(+)", "Rh positive"),
    ("HIV +ve", "HIV positive"),
    ("IL-6", "IL 6"),
    ("TGF-β1", "TGF-beta 1"),
    ("β-blocker", "beta blocker"),
    ("mg/dL", "mg per dl"),
    ("Crohn’s disease", "Crohns disease"),
    ("STRASSE", "straße"),
    ("ﬁbrosis", "fibrosis"),
    ("５ mg", "5 mg"),
    ("٥ mg", "5 mg"),
    ("cafe\u0301", "café"),
    ("soft\u00adware", "software"),
    ("The arachnodactyly", "Arachnodactyly."),
    ("A high temperature", "high temperature"),
    ("A positive test", "positive test"),
]
OTHER = [
    ("1.5 mg", "1-5 mg"),
    (".5 mg", "5 mg"),
    ("0.5 mg", "5.0 mg"),
    ("5%", "5"),
    ("-5", "5"),
    ("p = -2", "p = 2"),
    ("(-0.5)", "(+0.5)"),
    ("120/80", "120.80"),
    ("1/5", "1.5"),
    ("1:100", "1.100"),
    ("10^3", "10 3"),
    ("10⁵", "105"),
    ("10^5", "10^-5"),
    ("BMI>30", "BMI<30"),
    ("> 5 mg", "< 5 mg"),
    ("≥ 5", "> 5"),
    ("Rh+", "Rh-"),
    ("O+", "O-"),
    ("Na+", "Na-"),
    ("++", "+"),
    ("3+", "3"),
    ("A positive", "positive"),
    ("A-delta", "delta"),
    ("hepatitis A", "hepatitis"),
    ("vitamin A deficiency", "vitamin deficiency"),
    ("the vitamin A deficiency", "Vitamin deficiency"),
    ("cafe", "café"),
    ("का", "की"),
    ("หมู", "หมี"),
    ("22q11.2", "22q112"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_thing_are_equal(one: str, other: str) -> None:
    assert words(one) == words(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_only_looks_alike_is_not(one: str, other: str) -> None:
    assert words(one) != words(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("...", ["..."]),
        ("-", ["-"]),
        ("A", ["a"]),
        ("感染了肺炎", list("感染了肺炎")),
        ("22q11.2 deletion!", ["22", "q", "11.2", "deletion"]),
        ("1.2.3", ["1.2.3"]),
        ("pre- and postnatal", ["pre", "and", "postnatal"]),
    ],
)
def test_words_are_letters_numbers_and_signs(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_set_has_no_order_no_repeats_and_no_empty_members() -> None:
    assert members("Eye;; the eye ; ear") == {("eye",), ("ear",)}
    assert members("神经系统；肌肉骨骼") == members("肌肉骨骼; 神经系统")
    assert members(" ; ;") == frozenset()


@pytest.mark.parametrize(("one", "sign", "other"), EXAMPLES)
def test_the_examples_of_the_page_are_true(one: str, sign: str, other: str) -> None:
    assert (words(one) == words(other)) == (sign == "=")
