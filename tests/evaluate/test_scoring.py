import pytest

from medtune.evaluate.scoring import as_set, normalise, score, token_f1


@pytest.mark.parametrize(
    ("prediction", "reference", "is_set", "expected"),
    [
        ("Nervous system.", "nervous system", True, "exact"),
        ("limbs; nervous system", "nervous system; limbs", True, "exact"),
        ("limbs", "nervous system; limbs", True, "partial"),
        ("limbs; eye; ear", "limbs; eye", True, "partial"),
        ("system", "nervous system", True, "incorrect"),
        ("", "eye", True, "incorrect"),
        ("The arachnodactyly", "Arachnodactyly", False, "exact"),
        ("Long slender fingers", "Abnormally long fingers", False, "partial"),
        ("A heart disease", "Abnormally long fingers", False, "incorrect"),
        ("", "Abnormally long fingers", False, "incorrect"),
        ("hepatitis", "Hepatitis A", False, "partial"),
        ("Vitamin deficiency", "Vitamin A deficiency", False, "partial"),
        ("A", "A", False, "exact"),
        ("", "A", False, "incorrect"),
        ("...", "A", False, "incorrect"),
        ("-", "+", False, "incorrect"),
        ("+", "+", False, "exact"),
        ("> 5", "<5", False, "partial"),
        ("> 5", ">5 mg", False, "partial"),
    ],
)
def test_match_type(prediction: str, reference: str, is_set: bool, expected: str) -> None:
    assert score(prediction, reference, is_set=is_set, partial_f1=0.5).match_type == expected


def test_the_bound_decides_what_is_partial() -> None:
    f1 = token_f1("long slender fingers", "abnormally long fingers")
    assert f1 == pytest.approx(2 / 3)
    at = score("long slender fingers", "abnormally long fingers", is_set=False, partial_f1=f1)
    above = score("long slender fingers", "abnormally long fingers", is_set=False, partial_f1=f1 + 0.01)
    assert (at.match_type, above.match_type) == ("partial", "incorrect")


def test_token_f1_counts_repeated_words_once_each() -> None:
    assert token_f1("eye eye eye eye", "eye") == pytest.approx(0.4)
    assert token_f1("eye", "eye") == 1.0
    assert token_f1("", "eye") == 0.0


def test_normalise_keeps_accents_and_numbers() -> None:
    assert normalise("  The 22q11.2 (é)  deletion!") == "22q11 2 é deletion"
    assert as_set("Eye;; the eye ; ear") == {"eye", "ear"}
