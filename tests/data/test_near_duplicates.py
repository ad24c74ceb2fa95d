"""Near duplicates: verdicts a reader would give, whatever the order, the process and the index."""

import json
import os
import random
import subprocess
import sys
import unicodedata
from functools import cache

import pytest

from medtune.core.errors import MedtuneError
from medtune.data.near_duplicates import Match, NearDuplicates
from medtune.data.shingles import Sets, WordHashes, sets_of, words

ABSTRACT = " ".join(
    f"{sentence}."
    for sentence in (
        "We studied whether early mobilisation after hip surgery shortens the stay of older patients",
        "In a trial 412 patients above 70 years were drawn for walking on the first day or for usual care",
        "The primary outcome was the number of days until discharge, counted from the operation",
        "Secondary outcomes were falls, infections of the wound, pain at rest and death within ninety days",
        "Patients who walked early left after a median of six days, those of the other group after nine",
        "Falls were rare in both groups and did not differ, and neither did infections or the use of opioids",
        "Eleven patients died in the group with early walking and fourteen in that with usual care",
        "Nurses judged the programme to be feasible on most wards but asked for more staff at weekends",
        "An analysis by centre gave the same result, as did one without those with a second fracture",
        "Early mobilisation is safe after hip surgery and lets older patients go home days sooner",
    )
)
CHANGED = ABSTRACT.replace(
    "Nurses judged the programme to be feasible", "Therapists called all of it too costly"
)
TWENTY_WORDS = " ".join(f"word{number}" for number in range(20))

NEAR = [
    ("Does aspirin cause bleeding?", "does aspirin cause bleeding"),
    ("Does aspirin cause bleeding?", "  DOES ASPIRIN   cause\n(bleeding)?! "),
    ("What is Crohn's disease?", "What is Crohn\u2019s disease?"),
    ("What is Sjögren syndrome?", unicodedata.normalize("NFD", "What is Sjögren syndrome?")),
    ("What is HbA1c?", "\uff37\uff48\uff41\uff54 is \uff28\uff42\uff21\uff11\uff43?"),
    ("What is the ﬁrst sign?", "What is the first sign?"),
    ("Was heißt Fußpilz?", "WAS HEISST FUSSPILZ?"),
    ("What is anaemia?", "What is an\u200bae\u00admia\ufeff?"),
    ("What is beta-thalassaemia?", "What is beta\u2010thalassaemia?"),
    ("Is a base excess of -5 normal?", "Is a base excess of \u22125 normal?"),
    ("Is a glucose \u2264 60 low?", "Is a glucose <=60 low?"),
    ("Is a pH of 7.1 low?", "Is a pH of 7.1 low"),
    ("什么是糖尿病?", "什么是糖尿病\uff1f"),
    ("โรคเบาหวานคืออะไร", "โรคเบาหวาน คืออะไร?"),
    (ABSTRACT, CHANGED),
    (ABSTRACT, ABSTRACT.replace("412", "413")),
    (ABSTRACT, "Background: " + ABSTRACT),
    (TWENTY_WORDS, TWENTY_WORDS + " more"),
    ("aspirin", "Aspirin."),
]
NOT_NEAR = [
    ("What is arachnodactyly?", "What is anarthria?"),
    ("Does aspirin cause bleeding?", "Does aspirin not cause bleeding?"),
    ("Is aspirin indicated in acute stroke?", "Is aspirin contraindicated in acute stroke?"),
    ("How is type 1 diabetes treated?", "How is type 2 diabetes treated?"),
    ("How is diabetes treated?", "How is type 2 diabetes treated?"),
    ("Is a dose of 5 mg safe for a child?", "Is a dose of 50 mg safe for a child?"),
    ("Is a dose of 1.5 mg safe for a child?", "Is a dose of 15 mg safe for a child?"),
    ("Is a base excess of -5 normal?", "Is a base excess of 5 normal?"),
    ("Does it matter that p < 0.05?", "Does it matter that p > 0.05?"),
    ("Is a glucose < 60 low?", "Is a glucose \u2264 60 low?"),
    ("Which drug is for HER2+ cancer?", "Which drug is for HER2- cancer?"),
    ("Does stress cause insomnia?", "Does insomnia cause stress?"),
    ("Is bleeding caused by aspirin?", "Does aspirin cause bleeding?"),
    ("What is the medical term for a short thumb?", "What is the medical term for a broad thumb?"),
    (
        "Which of these is a sign of a stroke of the left side?",
        "Which of these is no sign of a stroke at all?",
    ),
    ("什么是1型糖尿病?", "什么是2型糖尿病?"),
    ("โรคเบาหวานคืออะไร", "โรคหอบหืดคืออะไร"),
    ("cause the cause", "the cause the"),
    (TWENTY_WORDS, TWENTY_WORDS.replace("word9 ", "other ")),
    (ABSTRACT, ABSTRACT[: len(ABSTRACT) // 2]),
    ("aspirin", ""),
    ("", ""),
    ("?!", "?!"),
    ("\u200b", "\u200b"),
    ("🙂", "🙂"),
]


def index(texts: dict[str, str], threshold: float = 0.8) -> NearDuplicates:
    made = NearDuplicates(threshold)
    made.add_all(texts.items())
    return made


@cache
def shingles(text: str) -> set[tuple[str, str, str]]:
    """As the definition has them, without hashes."""
    padded = ["", "", *words(text), "", ""]
    return set(zip(padded, padded[1:], padded[2:], strict=False)) if words(text) else set()


def similarity(one: str, other: str) -> float:
    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right) if left | right else 0.0


def drawn_texts(number: int, seed: int) -> list[str]:
    """Texts of 1 to 60 words, most of them an earlier one with up to twelve edits."""
    draw = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(30)]
    texts: list[str] = []
    for _ in range(number):
        if texts and draw.random() < 0.8:
            text = draw.choice(texts).split()
            for _ in range(draw.randint(0, min(12, len(text) - 1))):
                text[draw.randrange(len(text))] = draw.choice(vocabulary)
        else:
            text = draw.choices(vocabulary, k=draw.randint(1, 60))
        texts.append(" ".join(text))
    return texts


def nearest_of_all(texts: list[str], asked: str, threshold: float) -> Match | None:
    """What a comparison with every text says."""
    best = max(((similarity(text, asked), -number) for number, text in enumerate(texts)))
    return (-best[1], best[0]) if best[0] >= threshold else None


@pytest.mark.parametrize("pair", NEAR)
def test_what_differs_in_form_alone_or_is_long_and_nearly_the_same_is_near(pair: tuple[str, str]) -> None:
    for one, other in (pair, pair[::-1]):
        found = index({"one": one}).find(other)
        assert found is not None
        assert found == ("one", similarity(one, other))


@pytest.mark.parametrize("pair", NOT_NEAR)
def test_another_question_is_not_near_however_few_its_words(pair: tuple[str, str]) -> None:
    for one, other in (pair, pair[::-1]):
        assert index({"one": one}).find(other) is None
        assert similarity(one, other) < 0.8


@pytest.mark.parametrize("threshold", [1e-9, 0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_no_pair_is_missed_and_none_is_invented(threshold: float) -> None:
    texts, asked = drawn_texts(300, seed=1), drawn_texts(300, seed=1)[::3] + drawn_texts(60, seed=2)
    made = NearDuplicates(threshold)
    made.add_all(enumerate(texts))
    assert list(made.find_all(asked)) == [nearest_of_all(texts, text, threshold) for text in asked]


@pytest.mark.parametrize("words_changed", range(1, 5))
def test_a_pair_at_exactly_the_threshold_is_found_and_one_just_above_it_is_not_missed(
    words_changed: int,
) -> None:
    for length in range(words_changed * 3, 60, 4):
        text = [f"w{number}" for number in range(length)]
        other = text[:-words_changed] + [f"x{number}" for number in range(words_changed)]
        exactly = similarity(" ".join(text), " ".join(other))
        for threshold in (exactly, exactly - 1e-9, exactly + 1e-9):
            found = index({"text": " ".join(text)}, threshold).find(" ".join(other))
            assert found == (("text", exactly) if exactly >= threshold else None)


def test_at_one_only_the_same_shingles_are_near() -> None:
    made = index({"one": "pain and pain and pain", "two": "pain"}, 1.0)
    assert made.find("Pain and pain, and pain and pain.") == ("one", 1.0)
    assert made.find("pain and") is None


def test_order_and_parts_of_what_is_added_and_asked_do_not_matter() -> None:
    texts = list(enumerate(drawn_texts(300, seed=3)))
    asked = drawn_texts(300, seed=3)[::2]
    made = NearDuplicates(0.6)
    made.add_all(texts)
    found = list(made.find_all(asked))
    assert any(found)
    again = NearDuplicates(0.6)
    for number, text in texts[:150:-1]:
        again.add(number, text)
    again.find("a search between additions")
    again.add_all(texts[150::-1])
    assert [again.find(text) for text in asked] == found
    assert list(again.find_all(asked[::-1])) == found[::-1]


def test_of_equals_the_smallest_name_is_found() -> None:
    texts = {"c": "a b c", "b": "A, b, c!", "d": "a b c"}
    assert index(texts).find("a b c") == ("b", 1.0)
    added_later = index(texts)
    assert added_later.find("a b c") == ("b", 1.0)
    added_later.add("a", "a b c")
    assert added_later.find("a b c") == ("a", 1.0)
    ties = index({"y": TWENTY_WORDS + " last", "x": "first " + TWENTY_WORDS})
    assert ties.find(TWENTY_WORDS) == ("x", similarity(TWENTY_WORDS, "first " + TWENTY_WORDS))


def test_more_pairs_than_fit_at_once_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = drawn_texts(300, seed=4)
    expected = [nearest_of_all(texts, text, 0.3) for text in texts]
    monkeypatch.setattr("medtune.data.near_duplicates._PAIRS_AT_ONCE", 50)
    monkeypatch.setattr("medtune.data.near_duplicates._TEXTS_AT_ONCE", 70)
    monkeypatch.setattr("medtune.data.near_duplicates.MOST_TEXTS", 110)
    monkeypatch.setattr("medtune.data.shingles._WORDS_KEPT", 7)
    made = NearDuplicates(0.3)
    made.add_all(enumerate(texts))
    assert list(made.find_all(texts)) == expected


def test_another_process_with_another_hash_seed_finds_the_same() -> None:
    program = (
        "import json; from tests.data.test_near_duplicates import NearDuplicates, drawn_texts\n"
        "index = NearDuplicates(0.5); index.add_all(enumerate(drawn_texts(200, seed=5)))\n"
        "print(json.dumps(list(index.find_all(drawn_texts(200, seed=5)[::3] + drawn_texts(40, seed=6)))))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert any(json.loads(outputs.pop()))


def test_shingles_are_the_same_on_every_machine() -> None:
    """Pinned: the hashes decide about collisions, and so may not depend on anything but the text."""
    found = sets_of(["Does aspirin cause bleeding?"], WordHashes())
    assert found.hashes.tolist() == [
        1424576553845188201,
        1442500716011666933,
        3724394652775587498,
        6491969233649187456,
        8205521658300135347,
        17271409176750452053,
    ]


def test_an_empty_index_and_no_questions_are_answered() -> None:
    assert NearDuplicates(0.8).find("a b c") is None
    assert list(NearDuplicates(0.8).find_all([])) == []
    assert list(index({"one": "a"}).find_all(["", "a", ""])) == [None, ("one", 1.0), None]
    assert len(Sets.joined([])) == 0


def test_texts_of_ascii_are_read_as_those_of_unicode_are() -> None:
    texts = [one for pair in NEAR + NOT_NEAR for one in pair if one.isascii()]
    texts += [
        "a_b",
        "x-1",
        "(-1)",
        "5-10",
        "1+1",
        "HER2+/ER-",
        "p<=.05",
        "pre- and post-",
        "- item",
        "-.5 --5",
        "+-5",
    ]
    marked = "\u00e4"
    for text in texts:
        assert words(f"{text} {marked}") == [*words(f"{text} "), marked]


def test_a_text_that_is_no_unicode_is_read() -> None:
    assert index({"one": "a \ud800 b"}).find("a \ud800 b") == ("one", 1.0)


def test_a_row_of_forty_words_takes_less_than_580_bytes() -> None:
    draw = random.Random(7)
    # With 2**17 shingles and few more the table is as large for each as it can be.
    texts = {str(i): " ".join(f"w{draw.randrange(5000)}" for _ in range(40)) for i in range(3130)}
    empty, full = index({"x": "x"}), index(texts)
    for made in (empty, full):
        made.find("x")
    assert (full.nbytes - empty.nbytes) / len(texts) < 580
    assert empty.nbytes < 1000


def test_the_same_shingles_are_held_once() -> None:
    once, often = index({"0": ABSTRACT}), index({str(i): ABSTRACT for i in range(100)})
    for made in (once, often):
        made.find("x")
    assert once.nbytes == often.nbytes


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, float("nan")])
def test_a_threshold_that_is_no_similarity_is_refused(threshold: float) -> None:
    with pytest.raises(MedtuneError, match="accepted: above 0, up to 1"):
        NearDuplicates(threshold)
