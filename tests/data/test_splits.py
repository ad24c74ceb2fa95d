"""Splits by group: stable, sized as asked, and without a fact in two of them."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.examples import Example, Message
from medtune.data.faults import Rejects
from medtune.data.params import DataParams
from medtune.data.pool import NO_GROUP, Origin, Pool
from medtune.data.preparation import Prepared, prepare, split
from tests.conftest import example
from tests.data.raw import lines, write

NOTHING_SHARED = {"groups": 0, "questions": 0, "long_answers": 0, "stock_answers": 0}
LONG = "one two three four five six seven eight nine ten"


def params(**changes: object) -> DataParams:
    fields: dict[str, object] = {
        "sources": {"definition": {"path": "data/raw/mine.jsonl"}},
        "seed": 3,
        "validation": 0.2,
        "test": 0.2,
        "near_duplicates": None,
        "on_error": "drop",
    }
    return DataParams.model_validate(fields | changes)


def prepared(examples: Iterable[Example], **changes: object) -> Prepared:
    chosen = params(**changes)
    pool = Pool(chosen.seed)
    for number, one in enumerate(examples, start=1):
        pool.append(one, Origin(0, f"mine.jsonl, line {number}"))
    return split(pool, chosen, Rejects(), [])


def split_of(found: Prepared) -> dict[str, str]:
    return {one.id: name for name, examples in found.splits.items() for one in examples}


def loose(count: int, start: int = 0) -> list[Example]:
    """Questions that say nothing of a group."""
    return [
        example(id=str(i), question=f"Question {i}?", answer=f"Answer {i}", group=NO_GROUP)
        for i in range(start, start + count)
    ]


EXAMPLES = [
    example(id=str(i), question=f"Question {i}?", answer=f"Answer {i}", group=f"g{i // 3}")
    for i in range(300)
]


def test_groups_stay_together_and_all_examples_are_used() -> None:
    found = prepared(EXAMPLES)
    assert sorted(split_of(found)) == sorted(e.id for e in EXAMPLES)
    assert found.report()["overlaps"] == NOTHING_SHARED
    assert all(len(examples) % 3 == 0 for examples in found.splits.values())


@pytest.mark.parametrize("count", [12, 40, 100, 300])
@pytest.mark.parametrize("seed", range(8))
def test_small_sets_get_the_shares_that_were_asked_for(count: int, seed: int) -> None:
    sizes = {
        name: len(examples)
        for name, examples in prepared(loose(count), seed=seed, validation=0.1).splits.items()
    }
    assert abs(sizes["validation"] - 0.1 * count) <= 1
    assert abs(sizes["test"] - 0.2 * count) <= 1


def test_large_sets_get_them_too() -> None:
    sizes = [len(examples) for examples in prepared(loose(20_000), validation=0.1).splits.values()]
    assert sizes == [
        pytest.approx(14_000, rel=0.02),
        pytest.approx(2000, rel=0.1),
        pytest.approx(4000, rel=0.06),
    ]


def test_the_seed_decides() -> None:
    assert split_of(prepared(EXAMPLES)) == split_of(prepared(EXAMPLES))
    assert split_of(prepared(EXAMPLES)) != split_of(prepared(EXAMPLES, seed=4))


@pytest.mark.parametrize("count", [3, 40, 499, 700])
def test_added_rows_move_none_that_were_there(count: int) -> None:
    rows = loose(count + 40)
    before = split_of(prepared(rows[:-40] + loose(100, 5000)))
    after = split_of(prepared(rows[:-40] + loose(100, 5000) + rows[-40:]))
    assert after.items() >= before.items()


def test_added_rows_that_bridge_groups_move_none_either() -> None:
    rows = [
        example(id=f"{i}", question=f"Question {i}?", answer=f"{LONG} {i}", group=f"g{i}") for i in range(200)
    ]
    bridges = [
        example(
            id=f"b{i}",
            question=f"Again {i}?",
            answer=f"{LONG} {i}",
            answers=[f"{LONG} {i + 1}"],
            group=NO_GROUP,
        )
        for i in range(0, 200, 2)
    ]
    bridges += [
        example(
            id=f"c{i}",
            question=f"Bridge {i}?",
            answer=f"{LONG} {i}",
            answers=[f"{LONG} {i + 1}"],
            group=f"g{i}",
        )
        for i in range(1, 199, 2)
    ]
    before, after = prepared(rows), prepared([*rows, *bridges])
    moved = {one for one, name in split_of(after).items() if split_of(before).get(one, name) != name}
    assert moved == set()
    assert after.report()["overlaps"] == NOTHING_SHARED
    assert after.report()["left_out"]["definition"]["leak"] > 0
    # The test stays whole: what leaks goes from training and validation.
    assert {one for one, name in split_of(before).items() if name == "test"} <= split_of(after).keys()


@pytest.mark.parametrize("shared", ["question", "answer", "context"])
def test_what_is_shared_joins_groups(shared: str) -> None:
    def row(i: int, side: str) -> Example:
        fields: dict[str, object] = {"question": f"{i}{side}?", "answer": f"{i}{side}", "context": None}
        fields[shared] = f"{LONG} {i}"
        if shared == "question":
            fields["choices"] = None if side == "a" else [f"{i}{side}", "other"]
        return example(id=f"{i}{side}", group=NO_GROUP, **fields)

    found = prepared(row(i, side) for i in range(60) for side in "ab")
    assert found.report()["overlaps"] == NOTHING_SHARED
    if shared != "question":
        assert len(split_of(found)) == 120
        assert all(len(examples) % 2 == 0 for examples in found.splits.values())


def test_stock_sentences_join_nothing() -> None:
    rows = [
        example(id=str(i), question=f"Question {i}?", answer=f"{LONG} {i % 2}", group=NO_GROUP)
        for i in range(300)
    ]
    found = prepared(rows)
    assert found.report()["overlaps"] == {"groups": 0, "questions": 0, "long_answers": 0, "stock_answers": 2}
    assert len(split_of(found)) == 300
    assert all(len(examples) > 40 for examples in found.splits.values())


def test_the_same_stem_with_other_choices_is_another_question() -> None:
    rows = [
        example(
            id=str(i), question="Which is true?", answer=f"a{i}", choices=[f"a{i}", f"b{i}"], group=NO_GROUP
        )
        for i in range(60)
    ]
    found = prepared(rows)
    assert all(found.splits.values())
    assert len(split_of(found)) == 60


def test_the_same_question_once_open_and_once_with_choices_stands_in_one_split() -> None:
    sides = {"open": None, "closed": ["a", "b"]}
    # Their groups hold them apart: each joins the first question of its own.
    first = [
        example(id=f"{i}{side}-first", question=f"{side} {i}?", answer="a", group=f"{i}{side}")
        for i in range(100)
        for side in sides
    ]
    rows = [
        example(id=f"{i}{side}", question=f"Question {i}?", answer="a", choices=choices, group=f"{i}{side}")
        for i in range(100)
        for side, choices in sides.items()
    ]
    splits = split_of(prepared([*first, *rows]))
    assert len(splits) < 400
    for i in range(100):
        assert len({splits[one] for one in (f"{i}open", f"{i}closed") if one in splits}) == 1


@pytest.mark.parametrize("open_first", [True, False])
def test_questions_once_open_and_once_with_choices_join_a_group_and_none_is_lost(open_first: bool) -> None:
    sides = {
        has_choices: [
            example(
                id=f"{i}{has_choices}",
                question=f"Question {i}?",
                answer=f"a{i}",
                choices=[f"a{i}", "b"] if has_choices else None,
                group=NO_GROUP,
            )
            for i in range(300)
        ]
        for has_choices in (True, False)
    }
    found = prepared(sides[not open_first] + sides[open_first])
    assert len(split_of(found)) == 600
    assert found.report()["overlaps"] == NOTHING_SHARED


def test_repeats_are_left_out_and_contradictions_too() -> None:
    rows = [*loose(30), example(id="again", question="QUESTION 3", answer="Answer 3", group=NO_GROUP)]
    rows += [example(id="other", question="Question 4?", answer="Another", group=NO_GROUP)]
    found = prepared(rows)
    assert found.report()["left_out"] == {"definition": {"conflicting_answers": 2, "duplicate": 1}}
    assert {"again", "4", "other"}.isdisjoint(split_of(found))
    with pytest.raises(MedtuneError, match=r"mine.jsonl, line 5: .*\nerror: mine.jsonl, line 32: "):
        prepared(rows, on_error="fail")


def test_sizes_are_kept_and_all_that_cannot_be_filled_is_told_at_once() -> None:
    found = prepared(EXAMPLES, kinds={"definition": {"train": 20, "validation": 5, "test": 7}})
    assert {name: len(examples) for name, examples in found.splits.items()} == {
        "train": 20,
        "validation": 5,
        "test": 7,
    }
    with pytest.raises(MedtuneError) as error:
        prepared(EXAMPLES, kinds={"definition": {"test": 290, "validation": 291}})
    assert "data.kinds.definition.validation asks for 291 examples, of which 6" in str(error.value)
    assert "data.kinds.definition.test asks for 290 examples, of which 6" in str(error.value)
    assert "There are: definition 18" in str(error.value)
    with pytest.raises(MedtuneError, match="the split 'train' is empty"):
        prepared(EXAMPLES, kinds={"definition": {"train": 0}})


def test_a_source_may_give_a_share_of_its_training_examples() -> None:
    whole = prepared(EXAMPLES)
    half = prepared(EXAMPLES, sources={"definition": {"path": "data/raw/mine.jsonl", "share": 0.5}})
    assert list(half.splits["test"]) == list(whole.splits["test"])
    assert 0.35 < len(half.splits["train"]) / len(whole.splits["train"]) < 0.65
    assert set(split_of(half)) <= set(split_of(whole))


WORDS = [f"word{i}" for i in range(400)]


def near_twins(count: int) -> list[Example]:
    """Pairs of questions with a context of forty words, of which one differs."""
    rows = []
    for i in range(count):
        words = [WORDS[(i * 37 + n * n) % 400] for n in range(38)]
        for side in ("left", "right"):
            context = " ".join([f"case{i}", *words, side])
            rows.append(
                example(id=f"{i}{side}", question="Is it so?", answer=side, context=context, group=NO_GROUP)
            )
    return rows


def test_near_duplicates_stand_in_one_split() -> None:
    splits = split_of(prepared(near_twins(150), near_duplicates=0.8))
    assert len(splits) == 300
    assert all(splits[f"{i}left"] == splits[f"{i}right"] for i in range(150))
    apart = split_of(prepared(near_twins(150)))
    assert sum(apart[f"{i}left"] != apart[f"{i}right"] for i in range(150)) > 20


def test_near_duplicates_that_groups_hold_apart_leave_training() -> None:
    twins = near_twins(150)
    rows = [example(id=f"first {one.id}", question=f"{one.id}?", group=one.id) for one in twins]
    rows += [one.model_copy(update={"group": one.id}) for one in twins]
    apart, found = split_of(prepared(rows)), prepared(rows, near_duplicates=0.8)
    splits = split_of(found)
    assert {one for one, name in apart.items() if name == "test"} == {
        one for one, name in splits.items() if name == "test"
    }
    for i in range(150):
        assert len({splits[one] for one in (f"{i}left", f"{i}right") if one in splits}) == 1
    left = [row for row in found.rejects if row.reason == "leak"]
    assert len(left) == 600 - len(splits) > 20
    assert re.search(r"nearly the same question \(8\d%\) as \d+\w+ \(mine.jsonl, line \d+\)", left[0].detail)


def test_near_duplicates_that_are_added_move_none() -> None:
    rows = near_twins(200)
    first, second = rows[::2], rows[1::2]
    before = split_of(prepared(first, near_duplicates=0.8))
    after = split_of(prepared([*first, *second], near_duplicates=0.8))
    assert after.items() >= before.items()


def test_no_training_example_is_near_a_held_out_question() -> None:
    rows = near_twins(100)
    mine, held_out = rows[::2], rows[1::2][:50]
    chosen = params(near_duplicates=0.8)
    pool = Pool(chosen.seed)
    for number, one in enumerate(mine, start=1):
        pool.append(one, Origin(0, f"mine.jsonl, line {number}"))
    found = split(pool, chosen, Rejects(), [], [(f"held.jsonl, line {one.id}", one) for one in held_out])
    learned = {one.id for name in ("train", "validation") for one in found.splits[name]}
    assert learned and learned.isdisjoint({f"{i}left" for i in range(50)})
    assert len(found.splits["test"]) == len(prepared(mine).splits["test"])
    assert found.report()["left_out"]["definition"]["held_out"] > 30


def test_a_share_far_from_what_was_asked_is_said_with_its_reason() -> None:
    assert prepared(loose(300)).notes == []
    # The first group is as large as all others.
    crowd = [
        example(id=f"c{i}", question=f"Crowd {i}?", answer=f"Of crowd {i}", group="crowd") for i in range(150)
    ]
    found = prepared(crowd + loose(150))
    sizes = {split: len(examples) for split, examples in found.splits.items()}
    assert len(found.notes) == sum(abs(sizes[split] - 60) > 12 for split in ("validation", "test")) > 0
    why = "rows of a group stay together, and the largest, from mine.jsonl, line 1 on, has 150"
    for note in found.notes:
        split = note.partition(" ")[0]
        had = f"{split} has {sizes[split]} of 300 rows ({sizes[split] / 300:.1%})"
        assert note == f"{had}, not the 20% of data.{split}: {why}"


ASKED = [{"question": f"What is the name of thing number {i}?", "answer": f"name {i}"} for i in range(40)]


@pytest.mark.parametrize(
    "kept_back",
    [{}, {"answer": None}, {"answer": ""}, {"answer": -1}, {"answer": "a", "output": "b"}],
    ids=["no column", "null", "empty", "a number that is none", "two columns"],
)
def test_a_benchmark_that_keeps_its_answers_back_is_held_out_too(
    raw: Path, kept_back: dict[str, object]
) -> None:
    """Its rows were passed over, without a word, and the benchmark was learned."""
    write(raw / "mine.jsonl", ASKED)
    write(raw / "bench.jsonl", [{"question": row["question"]} | kept_back for row in ASKED[:20]])
    found = prepare(params(held_out=["data/raw/bench.jsonl"]))
    learned = {one.question for name in ("train", "validation") for one in found.splits[name]}
    assert learned and learned.isdisjoint(row["question"] for row in ASKED[:20])


def test_rows_that_hold_nothing_out_are_told(raw: Path) -> None:
    write(raw / "mine.jsonl", ASKED)
    (raw / "bench.jsonl").write_bytes(lines(ASKED[:1]) + b'{"question": null}\n{"question": "Wh\n')
    told = r"bench.jsonl, line 2: question is missing.*\n.*bench.jsonl, line 3: not JSON"
    with pytest.raises(MedtuneError, match=told):
        prepare(params(held_out=["data/raw/bench.jsonl"], on_error="fail"))
    warning = prepare(params(held_out=["data/raw/bench.jsonl"])).notes[-1]
    assert warning.startswith("warning: of data.held_out 2 rows keep nothing out of training")
    assert "data/raw/bench.jsonl, line 2: question is missing" in warning


def conversation(row: dict[str, str], number: int) -> dict[str, object]:
    """One that asks a question first and ends with another one."""
    said = [row["question"], row["answer"], f"What follows from {number}?", f"That {number} is so."]
    roles = ("user", "assistant") * 2
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]}


def test_what_an_earlier_turn_asks_is_no_question_of_the_test(raw: Path) -> None:
    """Its answer is learned as well, by `finetune.assistant_turns`."""
    write(raw / "turns.jsonl", [conversation(row, number) for number, row in enumerate(ASKED)])
    write(raw / "mine.jsonl", ASKED)
    sources = {"turns": {"path": "data/raw/turns.jsonl"}, "mine": {"path": "data/raw/mine.jsonl"}}
    found = prepare(params(sources=sources))
    tested = {one.question for one in found.splits["test"]}
    assert len(tested & {row["question"] for row in ASKED}) > 3
    for name in ("train", "validation"):
        for one in found.splits[name]:
            assert one.messages is None or one.messages[0].content not in tested
    # Grouped, not left out: a conversation and the question that it begins with go the same way.
    assert found.report()["left_out"] == {"turns": {}, "mine": {}}


def test_earlier_turns_leave_ready_made_splits_as_they_are_and_count_as_leaks(raw: Path) -> None:
    write(raw / "train.jsonl", [conversation(row, number) for number, row in enumerate(ASKED)])
    write(raw / "test.jsonl", [{"question": "What else is there?", "answer": "this"}, *ASKED[:3]])
    sources = {
        "turns": {"splits": {"train": "data/raw/train.jsonl"}},
        "mine": {"splits": {"test": "data/raw/test.jsonl"}},
    }
    with pytest.raises(MedtuneError, match=r"(?s)3 of 4 test .*the same question in an earlier turn"):
        prepare(params(sources=sources))
    assert prepare(params(sources=sources, max_leakage=0.8)).leakage == 0.75


def test_added_conversations_move_none() -> None:
    plain = loose(300)
    turns = [
        one.model_copy(
            update={
                "id": f"turns {one.id}",
                "question": f"And {one.id}?",
                "messages": [
                    Message(role="user", content=one.question),
                    Message(role="assistant", content=one.answer),
                ],
            }
        )
        for one in plain
    ]
    before, after = split_of(prepared(plain)), split_of(prepared([*plain, *turns]))
    assert after.items() >= before.items()
    assert all(after[f"turns {one.id}"] == after[one.id] for one in plain)


def test_many_conversations_that_begin_alike_are_no_single_group() -> None:
    hello = [Message(role="user", content="Can you help?"), Message(role="assistant", content="Yes.")]
    rows = [one.model_copy(update={"messages": hello}) for one in loose(300)]
    assert {len(examples) > 40 for examples in prepared(rows).splits.values()} == {True}


@pytest.mark.parametrize(
    "asked",
    [
        {"choices": ["this", "that", "a third thing that has many words"]},
        {"question": "  the CAPITALISED question number 3!"},
    ],
    ids=["with choices", "in capitals"],
)
def test_what_is_held_out_is_the_same_question_by_the_rules_of_splits(
    raw: Path, asked: dict[str, object]
) -> None:
    rows = [{"question": f"Capitalised question number {i}?", "answer": f"name {i}"} for i in range(40)]
    turns = [conversation(row, number) for number, row in enumerate(rows)]
    for name, mine in (("plain", rows), ("turns", turns)):
        write(raw / f"{name}.jsonl", mine)
        write(raw / "bench.jsonl", [rows[3] | asked])
        sources = {"definition": {"splits": {"train": f"data/raw/{name}.jsonl"}}}
        sources["other"] = {"splits": {"test": str(write(raw / "other.jsonl", ASKED))}}
        found = prepare(params(sources=sources, held_out=["data/raw/bench.jsonl"]))
        assert found.report()["left_out"]["definition"] == {"held_out": 1}
        [left] = found.rejects
        assert left.place == f"data/raw/{name}.jsonl, line 4"


def stock_rows(count: int) -> list[dict[str, str]]:
    """Questions with one long answer."""
    return [{"question": f"What may case {i} need?", "answer": LONG} for i in range(count)]


def test_repeats_make_no_answer_a_stock_sentence(raw: Path) -> None:
    write(raw / "mine.jsonl", [*ASKED, *stock_rows(6), *stock_rows(6)])
    report = prepare(params()).report()
    assert report["left_out"] == {"definition": {"duplicate": 6}}
    assert report["overlaps"] == NOTHING_SHARED


def test_what_is_a_stock_sentence_does_not_change_with_what_leaves(raw: Path) -> None:
    """With ten of eleven left the sentence was none any more, and where it stood in two splits a leak."""
    write(raw / "mine.jsonl", [*ASKED, *stock_rows(11)])
    write(raw / "bench.jsonl", stock_rows(4))
    for seed in range(20):
        report = prepare(params(seed=seed, held_out=["data/raw/bench.jsonl"])).report()
        assert report["leakage"] == 0 and report["overlaps"]["stock_answers"] == 1


def test_groups_that_ready_made_splits_share_are_counted(raw: Path) -> None:
    other = {"question": "What else is there?", "answer": "nothing", "group": "another"}
    named = [row | {"group": f"g{i % 10}"} for i, row in enumerate(ASKED)]
    splits = {
        name: str(write(raw / f"{name}.jsonl", rows))
        for name, rows in (
            ("train", named[:20]),
            ("validation", named[20:30]),
            ("test", [*named[35:], other]),
        )
    }
    found = prepare(params(sources={"definition": {"splits": splits}}, max_leakage=0.9))
    assert found.report()["overlaps"]["groups"] == 10
