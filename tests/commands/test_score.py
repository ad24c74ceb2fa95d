import json
import sys
from pathlib import Path
from typing import Any

import pytest

from medtune.commands.score import describe_score, score_as_json, score_file
from medtune.core.errors import MedtuneError
from tests.project import attempt

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No repository and no params.yaml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*rows: dict[str, object]) -> Path:
    path = Path("mine.jsonl")
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def row(right: str, text: str, number: int = 0, /, **fields: Any) -> dict[str, object]:
    return {"id": f"{right}{text}{number}{fields}", "ground_truth": right, "prediction": text, **fields}


def test_predictions_from_elsewhere_are_judged_by_the_same_rules() -> None:
    scored = score_file(
        write(row("5 mg", "5.0 mg"), row("Rh+", "Rh-"), row("long fingers", "very long fingers"))
    )
    assert [one.score.match_type for one in scored.predictions] == ["exact", "incorrect", "partial"]
    found = json.loads(score_as_json(scored))
    assert (found["all"]["n"], found["all"]["accuracy"]) == (3, pytest.approx(1 / 3))
    assert found["all"]["accuracy_low"] < 1 / 3 < found["all"]["accuracy_high"]
    assert [one["match_type"] for one in found["results"]] == ["exact", "incorrect", "partial"]


def test_kinds_groups_and_few_answers_are_seen() -> None:
    rows = [row("yes" if i < 6 else "no", "yes", i, kind="closed", group=str(i // 2)) for i in range(12)]
    text = describe_score(score_file(write(*rows, row("eye", "eye", kind="open", group="x"))))
    assert "closed: said yes 12; right are no 6, yes 6; macro-F1 0.33" in text
    assert [line.split()[:3] for line in text.splitlines()[1:4]] == [
        ["closed", "12", "50.0%"],
        ["open", "1", "100.0%"],
        ["all", "13", "53.8%"],
    ]
    assert "without `group`" not in text


def test_choices_are_right_to_the_letter_and_what_is_none_of_them_is_counted() -> None:
    scored = score_file(write(*(row("O+", text, choices=["O+", "O-"]) for text in ("O-", "O+", "O"))))
    assert [one.correct for one in scored.predictions] == [False, True, False]
    assert "1 of 3 predictions are none of their `choices`: they count as incorrect" in scored.notices
    assert "token_f1" not in scored.figures["all"]


def test_without_groups_it_says_what_that_means_and_empty_answers_are_counted() -> None:
    notices = score_file(write(row("eye", ""), row("ear", "ear"))).notices
    assert notices[0] == "1 predictions are empty: they count as incorrect"
    assert notices[1].startswith("without `group` every question counts as independent")


def test_sets_are_those_of_params_yaml() -> None:
    path = write(row("eye; ear", "ear; eye", kind="system"))
    assert not score_file(path).predictions[0].correct
    Path("params.yaml").write_text(
        "evaluate: {seed: 7, partial_f1: 0.5, choice_rule: sum, near_relative: 0.4, set_kinds: [system]}\n"
    )
    assert score_file(path).predictions[0].correct


def test_one_prediction_is_scored_without_a_bare_number() -> None:
    shown = attempt(*MEDTUNE, "score", str(write(row("eye", "ear"))), cwd=Path.cwd())
    assert shown.returncode == 0
    assert "0.0% to 100.0%" in shown.stdout
    assert "nan" not in shown.stdout


@pytest.mark.parametrize("content", ["", "{", '{"prediction": "x"}', "\udcff"])
def test_a_bad_file_is_one_line_and_exit_code_1(content: str) -> None:
    Path("mine.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    shown = attempt(*MEDTUNE, "score", "mine.jsonl", "--json", cwd=Path.cwd())
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("error: mine.jsonl")
    assert shown.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(MedtuneError, match=r"nowhere.jsonl: no such file"):
        score_file(Path("nowhere.jsonl"))


def test_a_prediction_counts_as_it_stands_whatever_the_likelihoods() -> None:
    odds = {"choices": ["no", "a long choice"], "log_likelihoods": [-3.0, -5.0]}
    scored = score_file(write(row("a long choice", "a long choice", **odds)))
    assert scored.figures["all"]["accuracy"] == scored.figures["all"]["accuracy_per_character"] == 1
    assert scored.figures["all"]["accuracy_sum"] == 0


def test_what_is_not_known_or_taken_for_granted_is_said() -> None:
    odds = {"choices": ["yes", "no"], "log_likelihoods": [-0.1, -3.0]}
    notices = score_file(write(row("yes", "yes", **odds), row("no", "no", choices=["yes", "no"]))).notices
    assert "1 of 2 questions with choices lack `log_likelihoods`: no odds are known" in notices
    assert "no params.yaml here: judged by the default rules, no kind as a set" in notices


def test_a_list_in_json_is_told_what_is_accepted() -> None:
    Path("mine.json").write_text("[]")
    with pytest.raises(MedtuneError, match="Predictions from elsewhere are JSONL: one object a line"):
        score_file(Path("mine.json"))
