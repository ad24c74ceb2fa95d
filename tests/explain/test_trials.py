"""What a few steps ask, and what they remember of earlier ones."""

from pathlib import Path

from medtune.explain.trials import STEPS, Trials, few_questions

PIPELINE = """\
stages:
  finetune: {cmd: python -m stages.finetune, deps: [input], outs: [models/adapter]}
  evaluate: {cmd: python -m stages.evaluate, deps: [other], metrics: [{metrics/details.json: {cache: false}}]}
"""


def rows(*names: str, **changes: object) -> list[dict[str, object]]:
    return [{"id": name, "kind": name[0], "question": name} | changes for name in names]


def test_questions_are_of_every_kind_and_of_what_differs() -> None:
    before = {"validation": rows("a1"), "test": [*rows("a1", "a2", "b1"), *rows("a3", "a4", choices=["x"])]}
    after = {"validation": rows("a1"), "test": [*before["test"][:-1], *rows("b9")]}
    asked = few_questions(before, after, 3)["test"]
    # One of each sort, and of the two that only one revision has the first.
    assert asked == {"a1", "b1", "a3", "a4"}
    assert few_questions(before, before, 3)["validation"] == {"a1"}


def test_a_stage_that_is_not_run_again_brings_nothing_of_another_trial(tmp_path: Path) -> None:
    """`evaluate` of an earlier trial once put that trial's losses over those of this one's training."""
    running = Trials(tmp_path, 3)
    running._known = {}
    places = []
    for name, loss in (("one", "1.0"), ("other", "2.0")):
        place = tmp_path / name
        (place / "metrics").mkdir(parents=True)
        (place / "params.yaml").write_text("finetune: {launch: single}\n")
        (place / "dvc.yaml").write_text(PIPELINE)
        (place / "other").write_text("the same in both")
        (place / STEPS).write_text(loss)
        places.append(place)
    started: list[str] = []

    def start(place: Path, stage: str, _: str) -> None:
        started.append(f"{stage} in {place.name}")
        (place / "metrics/details.json").write_text("{}")

    running._start = start  # type: ignore[method-assign, assignment]
    for place in places:
        assert running._stage(place, "evaluate") is None
    assert started == ["evaluate in one"]
    assert [(place / STEPS).read_text() for place in places] == ["1.0", "2.0"]
    assert (places[1] / "metrics/details.json").is_file()
