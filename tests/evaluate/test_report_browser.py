"""The report as a person uses it, in a real browser for which no host has an address."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium, visitor
from tests.conftest import example
from tests.evaluate.evaluated import questions, report_of

COUNT = 60
HOSTILE = (
    "<img src=x onerror='window.pwned = 1'></script><script>window.pwned = 1</script> & &lt;b&gt; {{ 7 }}"
)
FILTERS = [
    ("Kind", "yes/no", COUNT // 3),
    ("Tuned answer", "exact", COUNT // 2),
    ("Tuned answer", "partial", 0),
    ("Change", "gained", COUNT // 2),
    ("Change", "lost", COUNT // 4),
    ("Change", "both right", 0),
    ("Change", "both wrong", COUNT // 4),
    ("Near relative", "yes", COUNT // 3),
    ("Near relative", "no", COUNT * 2 // 3),
]
"""A filter's label, a choice of it, and how many of the questions have it."""
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"), report_of(questions(COUNT)))


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a page; at the end none has complained, and none asked for anything but its own file."""
    with visitor(browser, ("file:", "data:")) as visiting:

        def open_page(file: Path, **options: Any) -> Page:
            page = visiting.open(file.as_uri(), **options)
            expect(page.locator("#shown")).to_contain_text("questions")
            return page

        yield open_page


def written(folder: Path, report: str) -> Path:
    file = folder / "report.html"
    file.write_text(report, encoding="utf-8")
    return file


def shown(page: Page, count: int, of: int = COUNT) -> None:
    expect(page.locator("#shown")).to_have_text(f"{count:,} of {of:,} questions")


def test_every_chart_is_drawn_and_says_what_it_shows(opened: Open, made: Path) -> None:
    page = opened(made)
    charts = page.locator(".drawing > div")
    expect(page.locator(".drawing svg.marks")).to_have_count(charts.count())
    assert charts.count() >= 8
    assert all(
        drawing.get_attribute("aria-label") for drawing in page.locator("[role=graphics-document]").all()
    )


def test_each_filter_filters(opened: Open, made: Path) -> None:
    page = opened(made)
    for label, option, count in FILTERS:
        page.get_by_label(label, exact=True).select_option(label=option)
        shown(page, count)
        page.get_by_role("button", name="Show all").click()
        shown(page, COUNT)


def test_filters_and_search_go_together(opened: Open, made: Path) -> None:
    page = opened(made)
    page.get_by_label("Search").fill("F:59/yes/no")
    shown(page, 1)
    expect(page.locator("#table tbody")).to_contain_text("Is finding 59 rare?")
    page.get_by_label("Kind", exact=True).select_option(label="definition")
    shown(page, 0)
    expect(page.locator("#table tbody")).to_contain_text("No question matches")


def test_columns_are_sorted_by_keyboard(opened: Open, made: Path) -> None:
    page = opened(made)
    header = page.get_by_role("columnheader", name="Nearest")
    header.locator(".dt-column-order").focus()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("Enter")
    expect(page.locator("#table tbody tr").first).to_contain_text("0.70")


def test_a_row_is_opened_and_closed_by_keyboard(opened: Open, made: Path) -> None:
    page = opened(made)
    button = page.get_by_role("button", name="Details of question 3", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    for said in ("Is finding 2 rare?", "– yes", "nearest question", "similarity 0.70", "F:2/yes/no"):
        expect(page.locator(".details")).to_contain_text(said)
    page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".details")).to_have_count(0)


def test_markup_in_questions_and_answers_is_shown_and_does_nothing(opened: Open, tmp_path: Path) -> None:
    asked = [
        example(id=f"{number}{HOSTILE}", question=HOSTILE, answer=HOSTILE, answers=["b" + HOSTILE],
                kind=kind, group=HOSTILE, context=HOSTILE)
        for number, kind in enumerate((HOSTILE, "<script>", "all kinds"))
    ]  # fmt: skip
    page = opened(written(tmp_path, report_of(asked, base=HOSTILE, tuned=HOSTILE, nearest=HOSTILE)))
    expect(page.locator("#table tbody tr").first.locator("td").nth(2)).to_have_text(HOSTILE)
    page.get_by_role("button", name="Details of question 1", exact=True).click()
    expect(page.locator(".details")).to_contain_text(HOSTILE)
    page.locator("svg.marks").first.hover()
    page.get_by_label("Search").fill("onerror='window.pwned")
    shown(page, 3, 3)
    page.get_by_label("Kind", exact=True).select_option(label=HOSTILE)
    shown(page, 1, 3)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0


def test_ten_thousand_questions_are_usable(opened: Open, tmp_path: Path) -> None:
    times = 10_000 // COUNT + 1
    page = opened(written(tmp_path, report_of(questions(COUNT), times)))
    shown(page, COUNT * times, COUNT * times)
    assert page.locator("#table tbody tr").count() == 25
    page.get_by_label("Change", exact=True).select_option(label="lost")
    shown(page, COUNT // 4 * times, COUNT * times)
    page.get_by_label("Search").fill("F:59/yes/no")
    shown(page, 0, COUNT * times)
    page.get_by_label("Change", exact=True).select_option(label="any")
    shown(page, times, COUNT * times)


def test_a_phone_scrolls_in_one_direction(opened: Open, made: Path) -> None:
    page = opened(made, viewport={"width": 375, "height": 700})
    page.get_by_role("button", name="Details of question 1", exact=True).click()
    expect(page.locator(".details")).to_contain_text("A finding of the eye.")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.set_viewport_size({"width": 1200, "height": 700})
    expect(page.locator("#table").get_by_role("columnheader", name="Right answer")).to_be_visible()


def test_dark_is_dark(opened: Open, made: Path) -> None:
    color = "getComputedStyle(document.body).backgroundColor"
    light, dark = (
        opened(made, color_scheme=scheme).evaluate(color)
        for scheme in ("light", "dark")
    )  # fmt: skip
    assert light == "rgb(255, 255, 255)"
    assert sum(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 120
