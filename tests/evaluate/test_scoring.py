"""Exact, partial, incorrect; token-F1; choices."""

import pytest

from medtune.evaluate.scoring import score, score_choice, token_f1


@pytest.mark.parametrize(
    ("prediction", "reference", "is_set", "expected"),
    [
        ("Nervous system.", "nervous system", True, "exact"),
        ("limbs; nervous system", "nervous system; limbs", True, "exact"),
        ("limbs; limbs; limbs", "limbs", True, "exact"),
        ("limbs", "nervous system; limbs", True, "partial"),
        ("limbs; eye; ear", "limbs; eye", True, "partial"),
        ("system", "nervous system", True, "incorrect"),
        ("ER+; HER2-", "ER-; HER2+", True, "incorrect"),
        ("", "eye", True, "incorrect"),
        ("", ";", True, "incorrect"),
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
        ("> 5", "<5", False, "incorrect"),
        ("> 5", ">5 mg", False, "partial"),
    ],
)
def test_match_type(prediction: str, reference: str, is_set: bool, expected: str) -> None:
    assert score(prediction, reference, is_set=is_set, partial_f1=0.5).match_type == expected


def test_the_bound_decides_what_is_partial() -> None:
    prediction, reference = "long slender fingers", "abnormally long fingers"
    f1 = token_f1(prediction.split(), reference.split())
    assert f1 == pytest.approx(2 / 3)
    at, above = (score(prediction, reference, is_set=False, partial_f1=bound) for bound in (f1, f1 + 0.01))
    assert (at.match_type, above.match_type) == ("partial", "incorrect")


def test_token_f1_counts_repeated_words_once_each() -> None:
    assert token_f1(["eye"] * 4, ["eye"]) == pytest.approx(0.4)
    assert token_f1(["eye"], ["eye"]) == 1.0
    assert token_f1([], ["eye"]) == 0.0


@pytest.mark.parametrize(
    ("picked", "answer"), [("O+", "O-"), ("yes", "Yes"), ("5 mg", "5mg"), ("the eye", "eye")]
)
def test_a_choice_is_the_answer_or_it_is_not(picked: str, answer: str) -> None:
    assert score_choice(answer, answer).match_type == "exact"
    other = score_choice(picked, answer)
    assert (other.match_type, other.token_f1) == ("incorrect", None)


SAME = [
    ("1½", "1.5"), ("½", "0.5"), ("1e-5", "1 x 10^-5"), ("1E5", "1 × 10⁵"), ('"Rh-"', "Rh−"),
    ("1 : 100", "1:100"),
    ("pre- and postnatal", "pre and postnatal"), ("TSH ↑", "TSH increased"), ("5 - 10", "5–10"),
    ("no more than 5", "≤ 5"), ("not less than 5", "≥ 5"), ("less than or equal to 5", "≤5"),
    ("below 5", "< 5"), ("less than -2.5", "<-2.5"), ("> = 5", ">=5"), ("≯ 5", "≤ 5"), ("!= 5", "≠ 5"),
    ("-10 to -5", "−10–−5"), ("5 mg to 10 mg", "5–10 mg"), ("5%–10%", "5 to 10%"), ("5～10", "5-10"),
    ("5⸺10", "5-10"), ("˗5", "-5"), ("37,5 °C", "37.5 °C"), ("37º C", "37 °C"), ("10**3", "10³"),
    ("mcg/kg", "μg/kg"), ("umol/L", "μmol/L"), ("5 millimoles per litre", "5 mmol/L"),
    ("120 mm Hg", "120 mmHg"), ("O neg", "O-"), ("HIV-ve", "HIV negative"),
    ("γδ T cells", "gamma-delta T cells"),
    ("“The heart”", "heart"),
]  # fmt: skip
NOT_THE_SAME = [
    ("A→B", "A←B"), ("1½", "11/2"), ("1⅓", "11/3"), ("- 5", "5"), ("– 5 °C", "5 °C"),
    ("A- and B+", "A and B+"),
    ("Rh- to Rh+", "Rh to Rh+"), ("€5", "$5"), ("Rh-!", "Rh"), ("“Rh−”", "Rh"), ("O-。", "O"),
    ("cm⁻¹", "cm1"),
    ("1 : 100", "1 100"),
    ("≫ 5", "≪ 5"), ("≯ 5", "≮ 5"), ("5‰", "5"), ("5‰", "5%"), ("<-.5", "< .5"), ("−10–−5", "−10–5"),
    ("5 mg to 10 g", "5–10 g"), ("1,25-dihydroxyvitamin D", "1.25 dihydroxyvitamin D"), ("1,5 mg", "15 mg"),
    ("A Rh negative", "Rh negative"), ("A RhD+", "RhD+"), ("A fibres", "fibres"), ("γδ", "δγ"),
    ("Gram positive", "g positive"), ("Gram's stain", "G stain"), ("stage 1a-2a", "stage 1-2a"),
]  # fmt: skip
OPPOSITE = [
    ("↑ TSH", "↓ TSH"), ("K↑", "K↓"), ("¬A", "A"), ("1E-5 mol", "1E5 mol"), ("1.0e-5", "1.0e5"),
    ("10^5 copies", "10^-5 copies"), ("it doesn't cause fever", "it does cause fever"),
    ("can't walk far", "can walk far"), ("unable to walk", "able to walk"),
    ("contraindicated in pregnancy", "indicated in pregnancy"),
    ("seropositive patient", "seronegative patient"),
    ("ER+ PR- cancer", "ER- PR+ cancer"), ("flows from left to right", "flows from right to left"),
    ("HER2 pos", "HER2 neg"), ("HIV-ve", "HIV+ve"), ("less than -2.5 SD", "greater than -2.5 SD"),
    ("over 65 years", "< 65 years"), ("> 5 mg a day", "under 5 mg a day"),
    ("older than 65 years", "younger than 65 years"),
    ("高血压", "低血压"), ("急性肾炎", "慢性肾炎"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_spellings_of_one_thing_are_exact(one: str, other: str) -> None:
    assert verdict(one, other) == verdict(other, one) == "exact"


@pytest.mark.parametrize(("one", "other"), NOT_THE_SAME + OPPOSITE)
def test_what_looks_alike_is_not_exact(one: str, other: str) -> None:
    assert "exact" not in (verdict(one, other), verdict(other, one))


@pytest.mark.parametrize(("one", "other"), OPPOSITE)
def test_the_opposite_is_never_partly_right(one: str, other: str) -> None:
    assert verdict(one, other) == verdict(other, one) == "incorrect"


def verdict(prediction: str, reference: str) -> str:
    return score(prediction, reference, is_set=False, partial_f1=0.5).match_type
