import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from medtune.core.answers import AnswerText
from medtune.evaluate.page import bundles
from medtune.evaluate.page.sections import scopes
from medtune.evaluate.page.words import by_kind_sentence, p_value, verdict_sentence
from medtune.evaluate.predictions import judge
from medtune.evaluate.report import report
from tests.conftest import EARLIER, example
from tests.evaluate.evaluated import (
    LOSS,
    NEAR,
    PARAMS,
    RECORD,
    details_of,
    predictions_of,
    questions,
    relatives_of,
    report_of,
)

HOSTILE = (
    '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">&lt;b&gt;{{ 7 * 7 }}'
)
COMPARISON = {"difference": 0.22, "low": 0.172, "high": 0.263, "verdict": "better", "smallest": 0.06}


class Page(HTMLParser):
    """What a browser would read: names of elements, headings, text outside scripts, and data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.data: dict[str, str] = {}
        self.text = ""
        self._inside: tuple[str, str] = ("", "")
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self._inside = tag, dict(attrs).get("id") or ""
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ("", "")

    def handle_data(self, data: str) -> None:
        tag, name = self._inside
        if tag == "script":
            self.data[name] = self.data.get(name, "") + data
        elif tag != "style":
            self.text += data
        if tag == "h2":
            self.headings[-1] += data


def table_of(page: Page) -> dict[str, Any]:
    return json.loads(page.data["examples-data"])


def test_equal_evaluations_are_equal_bytes() -> None:
    assert report_of(questions(24)) == report_of(questions(24))


def test_it_loads_nothing_and_may_load_nothing() -> None:
    text = report_of(questions(24))
    assert all(address.startswith(("#", "data:")) for address in Page(text).addresses)
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0])
    assert "default-src 'none'" in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert scripts.count("'sha256-") == 3
    assert "unsafe" not in scripts


def test_every_part_is_there_and_it_says_that_it_is_no_advice() -> None:
    page = Page(report_of(questions(24)))
    assert page.headings == [
        "Verdict",
        "By kind of question",
        "What is shown and what is not",
        "With and without a near relative in training",
        "Which answers are taken for which",
        "How far the odds can be believed",
        "How long answers are",
        "Training",
        "Parameters and record",
        "All examples",
    ]
    for said in (
        "Not medical advice.",
        "finetune.lora.r",
        "662cfd1dcfe8282d",
        "macro-F1",
        "Brier score",
    ):
        assert str(said) in page.text


def test_what_there_is_nothing_for_is_left_out() -> None:
    asked = [example(id=f"{number}", answer="fever") for number in range(4)]
    found = predictions_of(asked)
    figures = {key: value for key, value in details_of(found).items() if key in ("all", "kinds")}
    page = Page(report(found, [None] * 4, figures, [], {}, NEAR))
    assert page.headings == ["By kind of question", "How long answers are", "All examples"]
    assert "50.0% [42.0%, 58.0%] exact answers" not in page.text
    assert [row[7] for row in table_of(page)["rows"]] == [None] * 4


def test_the_unquantised_base_is_told_of_where_it_was_asked() -> None:
    asked = questions(24)
    found = predictions_of(asked)
    figures = details_of(found) | {"unquantized": {"accuracy": 0.45, "same_answers": 0.9}}
    page = Page(report(found, relatives_of(asked), figures, LOSS, RECORD, NEAR))
    assert "has 45.0% exact answers; 90.0% of its answers are the same." in page.text


def test_questions_with_choices_alone_have_no_lengths() -> None:
    asked = [one for one in questions(24) if one.choices]
    found = predictions_of(asked)
    page = Page(report(found, relatives_of(asked), details_of(found), LOSS, RECORD, NEAR))
    assert "How long answers are" not in page.headings
    assert "How far the odds can be believed" in page.headings


@pytest.mark.parametrize("field", ["question", "answer", "kind", "id", "context", "system"])
def test_markup_in_an_example_is_text(field: str) -> None:
    asked = [example(**{"id": "1", field: HOSTILE}), example(id="2")]
    usual = Page(report_of([example(id="1", kind="other"), example(id="2")]))
    page = Page(report_of(asked))
    assert page.elements.count("script") == usual.elements.count("script")
    assert "img" not in page.elements
    assert "49" not in page.text
    if field != "system":
        assert HOSTILE in json.dumps(table_of(page), ensure_ascii=False).replace('\\"', '"')


def test_markup_in_answers_relatives_and_record_is_text() -> None:
    asked = questions(6)
    found = predictions_of(asked, base=HOSTILE, tuned=HOSTILE)
    record = {"parameters": {HOSTILE: HOSTILE}, "inputs": {HOSTILE: "1"}, "base_model": {"source": HOSTILE}}
    page = Page(report(found, relatives_of(asked), details_of(found), LOSS, record, NEAR))
    assert page.elements.count("script") == 5
    assert "img" not in page.elements
    assert page.text.count(HOSTILE) >= 4


@pytest.mark.parametrize(
    "kind", ["all", "all kinds", "all kinds together", "yes/no", "<script>", "__proto__", "a.b[0]"]
)
def test_a_kind_may_be_called_anything(kind: str) -> None:
    asked = [example(id=f"{number}", kind=(kind, "other")[number % 2]) for number in range(4)]
    page = Page(report_of(asked))
    assert sorted(table_of(page)["kinds"]) == sorted([kind, "other"])
    names = [label for label, _ in scopes(details_of(predictions_of(asked)))]
    assert len(set(names)) == 3


def test_the_table_has_what_every_model_said() -> None:
    asked = [example(id="1", answer="fever", answers=["pyrexia"], context="A child.", messages=EARLIER[:2])]
    texts = {"base": "cold", "tuned": "Pyrexia", "shots": "fever"}
    found = {
        model: judge(
            asked,
            {"1": AnswerText(text=text, tokens=1, truncated=model == "base")},
            PARAMS.model_copy(update={"set_kinds": []}),
        )
        for model, text in texts.items()
    }
    data = table_of(Page(report(found, [None], details_of_one(found), [], {}, NEAR)))
    assert data["models"] == ["untuned", "tuned", "untuned with examples"]
    assert data["rows"] == [
        [0, "1", "What is fever?", "user: Is fever a disease?\n\nassistant: No.\n\nA child.",
         ["fever", "pyrexia"], None,
         [["cold", 0, 1], ["Pyrexia", 2, 0], ["fever", 2, 0]], None]
    ]  # fmt: skip


def details_of_one(found: Any) -> dict[str, Any]:
    return {
        key: value
        for key, value in details_of(found | {"nearest": found["base"]}).items()
        if key in ("all", "kinds")
    }


def test_a_verdict_in_words() -> None:
    better = verdict_sentence(COMPARISON, "the untuned model")
    assert better == (
        "The tuned model is better than the untuned model: +22.0 points of exact answers, "
        "95% interval 17.2 to 26.3."
    )
    open_ended = COMPARISON | {"difference": -0.001, "low": -0.05, "high": 0.0, "verdict": "not shown"}
    found = verdict_sentence(open_ended, "the best lookup")
    assert found.endswith(
        "is not shown: −0.1 points of exact answers, 95% interval −5.0 to 0.0; "
        "these questions could have shown a difference of 6.0 points."
    )
    assert "could have" not in verdict_sentence(open_ended | {"smallest": None}, "the best lookup")
    assert "nothing changed" in verdict_sentence(COMPARISON | {"verdict": "unchanged"}, "it")


def test_the_verdicts_of_kinds_in_words() -> None:
    kinds = {name: {"accuracy": {"verdict": verdict}} for name, verdict in
             (("a", "not shown"), ("b", "better"), ("c", "better"), ("d", "worse"))}  # fmt: skip
    assert by_kind_sentence({"kinds": kinds}) == "By kind: better in b and c; worse in d; not shown in a."
    assert by_kind_sentence({}) == ""


def test_a_small_p_is_not_zero() -> None:
    assert [p_value(value) for value in (0.0, 0.0005, 0.042, None)] == ["< 0.001", "< 0.001", "0.042", "–"]


def test_the_scripts_of_others_can_stand_in_a_page() -> None:
    for script in (bundles.vega(), bundles.data_tables()):
        assert not re.search(r"<!--|</script|\r", script, re.IGNORECASE)
    assert bundles.inline("'<!-- </SCRIPT>'\r\n") == "'\\x3C!-- \\x3C/SCRIPT>'\n"
