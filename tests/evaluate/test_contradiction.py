"""Answers that share most of their words and say the opposite are not partly right."""

import pytest

from medtune.evaluate.scoring import score

OPPOSITE = [
    ("no evidence of cancer", "evidence of cancer"),
    ("not recommended", "recommended"),
    ("free of symptoms at rest", "symptoms at rest"),
    ("non-small cell carcinoma", "small cell carcinoma"),
    ("increased cardiac output", "decreased cardiac output"),
    ("left ventricle", "right ventricle"),
    ("hypertension of the lung", "hypotension of the lung"),
    ("neutropenia in children", "neutrophilia in children"),
    ("abnormal cardiac output", "normal cardiac output"),
    ("affected parents", "unaffected parents"),
    ("HER2 positive", "HER2 negative"),
    ("HER2+", "HER2-"),
    ("> 5 mg", "< 5 mg"),
    ("5 mg twice daily", "50 mg twice daily"),
    ("0.5 mg", "5 mg"),
    ("无肺炎的患者", "肺炎的患者"),
    ("pneumonia is not ruled out", "pneumonia is ruled out"),
    ("cancer cannot be ruled out", "cancer can be ruled out"),
    ("not negative for HIV", "negative for HIV"),
    ("never fails to close", "fails to close"),
    ("cough without fever", "fever without cough"),
    ("no fever but cough", "fever but no cough"),
    ("low TSH and high T4", "low T4 and high TSH"),
    ("increased in men and decreased in women", "decreased in men and increased in women"),
    ("increased in men and decreased in women", "increased in women and decreased in men"),
    ("low TSH and high T4", "high TSH and low T4"),
    ("熱がない", "熱がある"),
    ("症状なし", "症状あり"),
    ("ไม่มีไข้", "มีไข้"),
    ("negative for malignancy", "malignancy"),
    ("ruled out pneumonia", "pneumonia"),
    ("failed to respond to treatment", "responded to treatment"),
    ("seizure-free", "seizure"),
    ("pre-operative antibiotics", "post-operative antibiotics"),
    ("hyper-kalemia", "hypo-kalemia"),
    ("upregulation of the gene", "downregulation of the gene"),
    ("antenatal screening", "postnatal screening"),
    ("euthyroid patient", "hyperthyroid patient"),
    ("normocytic anaemia", "microcytic anaemia"),
    ("thrombocytosis at birth", "thrombocytopenia at birth"),
    ("metabolic acidosis", "metabolic alkalosis"),
    ("painless jaundice", "painful jaundice"),
    ("renal dysfunction", "renal function"),
    ("clockwise rotation", "counterclockwise rotation"),
    ("low potassium", "elevated potassium"),
    ("lowers cardiac output", "increases cardiac output"),
    ("sympathetic stimulation", "parasympathetic stimulation"),
    ("good prognosis", "poor prognosis"),
]
NOT_OPPOSITE = [
    ("left and right ventricle", "right ventricle"),
    ("Long slender fingers", "Abnormally long fingers"),
    ("no sign of a tumour", "no evidence of a tumour"),
    ("5 mg of aspirin", "5 mg aspirin daily"),
    ("free fatty acids", "fatty acids"),
    ("感染了肺炎", "肺炎"),
    ("another cause of fever", "other cause of fever"),
    ("negative for malignancy today", "no malignancy today"),
    ("no cough or fever", "no fever or cough"),
    ("no fever, patient with cough", "patient with cough, no fever"),
    ("without nausea and vomiting", "without vomiting and nausea"),
    ("no fever, cough or rash", "no cough, fever or rash"),
    ("HIV negative patient", "patient negative for HIV"),
    ("free of disease", "disease free"),
    ("free T4 in serum", "T4 in serum"),
    ("high TSH and low T4", "low T4 and high TSH"),
    ("ER+ PR- HER2+", "PR- ER+ HER2+"),
    ("increased in men and decreased in women", "decreased in women and increased in men"),
    ("no fever and no cough", "no cough and no fever"),
    ("left and right ventricle", "right and left ventricle"),
    ("inpatient care of children", "care of children"),
    ("subacute endocarditis", "endocarditis"),
    ("upper limb in children", "limb in children"),
]


def verdict(prediction: str, reference: str) -> str:
    return score(prediction, reference, is_set=False, partial_f1=0.3).match_type


@pytest.mark.parametrize(("one", "other"), OPPOSITE)
def test_the_opposite_is_incorrect_whichever_is_the_reference(one: str, other: str) -> None:
    assert verdict(one, other) == "incorrect"
    assert verdict(other, one) == "incorrect"


@pytest.mark.parametrize(("one", "other"), NOT_OPPOSITE)
def test_what_shares_words_and_denies_nothing_is_partial(one: str, other: str) -> None:
    assert verdict(one, other) == "partial"
    assert verdict(other, one) == "partial"
