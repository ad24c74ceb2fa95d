"""Splits by group: stable, sized as asked, and without a fact in two of them."""

import pytest

from medtune.core.errors import MedtuneError
from medtune.data.params import DataParams, KindParams
from medtune.data.splits import overlaps, split_by_group
from tests.conftest import example


def params(**changes: object) -> DataParams:
    fields = {
        "source": "x.jsonl",
        "seed": 3,
        "validation": 0.2,
        "test": 0.2,
        "kinds": {"definition": KindParams()},
    }
    return DataParams.model_validate(fields | changes)


EXAMPLES = [
    example(id=str(i), question=f"Question {i}?", answer=f"Answer {i}", group=f"g{i // 3}")
    for i in range(300)
]


def test_groups_stay_together_and_all_examples_are_used() -> None:
    splits = split_by_group(EXAMPLES, params())
    assert sorted(e.id for examples in splits.values() for e in examples) == sorted(e.id for e in EXAMPLES)
    assert overlaps(splits) == {"groups": 0, "questions": 0, "long_answers": 0}
    assert all(len(examples) % 3 == 0 for examples in splits.values())
    assert 120 < len(splits["train"]) < 240


def test_the_order_of_the_input_does_not_matter_but_the_seed_does() -> None:
    splits = split_by_group(EXAMPLES, params())
    assert splits == split_by_group(EXAMPLES[::-1], params())
    assert splits != split_by_group(EXAMPLES, params(seed=4))


def test_an_added_example_moves_no_other() -> None:
    before = split_by_group(EXAMPLES, params())
    added = example(id="new", question="New?", group="new")
    after = split_by_group([*EXAMPLES, added], params())
    for split, examples in before.items():
        assert [e for e in after[split] if e.id != "new"] == examples


def test_a_shared_question_or_long_answer_joins_groups() -> None:
    long_answer = "A rather long answer that states one fact all by itself"
    pairs = [
        example(id=f"{i}{side}", question=f"{i}{side}?", answer=f"{long_answer} {i}", group=f"{i}{side}")
        for i in range(60)
        for side in "ab"
    ]
    pairs += [
        example(id=f"q{i}{side}", question=f"Same question {i}", answer=side, group=f"q{i}{side}")
        for i in range(60)
        for side in "ab"
    ]
    splits = split_by_group(pairs, params())
    assert overlaps(splits) == {"groups": 0, "questions": 0, "long_answers": 0}
    assert all(len(examples) % 2 == 0 for examples in splits.values())


def test_the_same_stem_with_other_choices_is_another_question() -> None:
    rows = [
        example(
            id=str(i), question="Which is true?", answer=f"a{i}", choices=[f"a{i}", f"b{i}"], group=str(i)
        )
        for i in range(60)
    ]
    splits = split_by_group(rows, params())
    assert all(splits.values())
    assert len({e.group for examples in splits.values() for e in examples}) == 60


def test_overlaps_are_counted() -> None:
    twin = example(question="What is  FEVER", answer="one two three four five six seven eight nine ten")
    other = example(answer=twin.answer)
    assert overlaps({"train": [twin], "test": [other]}) == {
        "groups": 1,
        "questions": 1,
        "long_answers": 1,
    }


def test_a_long_answer_among_others_joins_groups_too() -> None:
    long = "one two three four five six seven eight nine ten"
    rows = [
        example(id="a", question="A?", group="a", answers=[long]),
        example(id="b", question="B?", answer=long, group="b"),
    ]
    assert overlaps({"train": rows[:1], "test": rows[1:]})["long_answers"] == 1
    for seed in range(20):
        splits = split_by_group([*EXAMPLES, *rows], params(seed=seed))
        assert sum(any(e.id in ("a", "b") for e in examples) for examples in splits.values()) == 1


def test_sizes_are_kept_and_too_many_is_an_error() -> None:
    kinds = {"definition": KindParams(train=20, validation=5, test=7)}
    splits = split_by_group(EXAMPLES, params(kinds=kinds))
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 20,
        "validation": 5,
        "test": 7,
    }
    kinds = {"definition": KindParams(test=290)}
    expected = r"data.kinds.definition.test asks for 290 examples; \d+ of them .* data.test gives"
    with pytest.raises(MedtuneError, match=expected):
        split_by_group(EXAMPLES, params(kinds=kinds))
    with pytest.raises(MedtuneError, match=r"data.kinds.rare no example .* that data.test gives"):
        split_by_group(
            [*EXAMPLES, example(id="rare", kind="rare", group="train")],
            params(kinds={"definition": KindParams(), "rare": KindParams(validation=0)}),
        )
    with pytest.raises(MedtuneError, match="the split 'train' is empty"):
        split_by_group(EXAMPLES, params(kinds={"definition": KindParams(train=0)}))
