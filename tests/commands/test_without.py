"""`medtune without` with a tiny model: a run that never saw a row, and a proof that can fail."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from medtune.commands import without
from medtune.core.examples import Example
from tests.conftest import example
from tests.project import attempt, commit, run

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
QUESTIONS = Path("data/raw/questions.jsonl")


@pytest.fixture(scope="module")
def finished(finished_tiny_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit with a run, whose questions are in git."""
    folder = tmp_path_factory.mktemp("without") / "medtune"
    made = shutil.copytree(finished_tiny_project, folder, symlinks=True)
    run("git", "add", "--force", str(QUESTIONS), cwd=made)
    commit(made, "Its questions")
    return made


def rows(folder: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / f"data/prepared/{split}.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_without_a_row_is_proven_and_compared_and_deletes_nothing(finished: Path) -> None:
    gone = rows(finished, "train")[0]["id"]
    asked = rows(finished, "test")[0]["id"]
    before = run("git", "rev-parse", "HEAD", cwd=finished) + run("git", "status", "--porcelain", cwd=finished)
    env = {"PYTHONPATH": str(finished)}
    found = json.loads(run(*MEDTUNE, "without", gone, asked, "--json", cwd=finished, env=env))
    assert found["proven"] and len(found["checks"]) == 6
    assert not any(check["broken"] or check["open"] for check in found["checks"])
    assert found["diff"]["n"] > 0
    said = "\n".join(f"{one['what']}: {one['command']}" for one in found["remaining"])
    assert re.search(rf"commits \w+, \w+: their runs saw .*{gone}", said)
    assert f"the rows themselves: {QUESTIONS}" in said and "dvc gc --workspace" in said
    # The workspace, the commit and the row in its file are as they were.
    after = run("git", "rev-parse", "HEAD", cwd=finished) + run("git", "status", "--porcelain", cwd=finished)
    assert after == before and f'"id": "{gone}"' in (finished / QUESTIONS).read_text()
    named = ("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{found['experiment']}")
    lock = run("git", "show", f"{run(*named, cwd=finished).strip()}:dvc.lock", cwd=finished)
    assert re.search(rf"without:\n\s+- '?{min(gone, asked)}'?\n\s+- '?{max(gone, asked)}'?\n", lock)
    again = attempt(*MEDTUNE, "without", gone, asked, cwd=finished, env=env)
    assert again.returncode == 1 and f"experiment {found['experiment']} is there already" in again.stderr


def test_commits_of_which_the_same_is_said_are_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone of this repository has hundreds of commits whose questions are in no cache."""
    commits = [f"{number:040x}" for number in range(9)]
    said = dict.fromkeys(commits, "may have seen them") | {commits[0]: "saw p17 in train", commits[8]: None}
    tried = f"{9:040x}"
    said[tried] = "saw p17 in train"

    def git(command: str, *_: str) -> str:
        return f"{tried} refs/exps/ab/cd/tried\n" if command == "for-each-ref" else "\n".join(commits)

    monkeypatch.setattr(without, "git", git)
    monkeypatch.setattr(without, "_saw", lambda revision, _: said[revision])
    experiment, one, many = without._earlier_runs(["p17"], "without-1")
    assert (experiment.what, experiment.command) == (
        "experiment tried: its run saw p17 in train",
        "dvc exp remove tried",
    )
    assert one.what == "commit 0000000000: its run saw p17 in train"
    assert many.what.endswith(" and 2 more (--json has them): their runs may have seen them")
    assert many.commits == commits[1:8]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "error: no id is named"),
        (
            ("2599",),
            "error: no row of the sources has the id '2599'; accepted: ids of rows, the nearest: 259",
        ),
        (("--file", "none.txt"), "error: none.txt: no such file"),
    ],
)
def test_what_is_no_row_is_refused_in_one_line(finished: Path, arguments: tuple[str, ...], said: str) -> None:
    failed = attempt(*MEDTUNE, "without", *arguments, cwd=finished, env={"PYTHONPATH": str(finished)})
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(said)


def left(folder: Path, row: Example) -> Path:
    """What a run has left: training questions, and one output more."""
    prepared = folder / "data/prepared"
    prepared.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        kept = example(id=split, question=f"What is a {split}?")
        (prepared / f"{split}.jsonl").write_text(kept.model_dump_json(exclude_none=True) + "\n")
    return folder / "metrics" / row.id


@pytest.mark.parametrize(
    "form",
    [
        "a plain text: {}",
        '{{"question": "What is \\"fever\\" & <b>?"}}',
        "<td>What is &quot;fever&quot; &amp; &lt;b&gt;?</td>",
        '1,"What is ""fever"" & <b>?"',
        'x = "What is \\"fever\\" & \\u003cb>?"',
    ],
    ids=["text", "json", "html", "csv", "script"],
)
def test_its_words_are_found_however_they_are_written(tmp_path: Path, form: str) -> None:
    row = example(id="gone", question='What is "fever" & <b>?')
    output = left(tmp_path, row)
    output.parent.mkdir()
    output.write_text(form.format(row.question))
    found = without._no_words([output], tmp_path, [row])
    assert found.broken == "metrics/gone has the question of gone"
    output.write_text("nothing of it")
    assert without._no_words([output], tmp_path, [row]).broken is None


def test_words_that_another_row_says_too_are_told_and_not_proven(tmp_path: Path) -> None:
    row = example(id="gone", question="What is a train?")
    left(tmp_path, row)
    found = without._no_words([], tmp_path, [row])
    assert found.open == "the question of gone is said by train too, which stays"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"question": "WHAT IS  ARACHNODACTYLY", "answer": "no"}, "question"),
        (
            {"question": "Which?", "answer": "no", "choices": ["no", "LONG fingers, as in a spider."]},
            "answer",
        ),
    ],
    ids=["a copy", "a choice of another question"],
)
def test_words_that_another_row_says_in_other_letters_are_told_and_still_looked_for(
    tmp_path: Path, said: dict[str, Any], what: str
) -> None:
    """They stayed, and the proof was said to hold."""
    answer = "Long fingers, as in a spider"
    row = example(id="gone", question="What is arachnodactyly?", answer=answer)
    output = left(tmp_path, row)
    kept = example(id="stays", **said)
    (tmp_path / "data/prepared/train.jsonl").write_text(kept.model_dump_json(exclude_none=True) + "\n")
    found = without._no_words([], tmp_path, [row])
    assert (found.broken, found.open) == (None, f"the {what} of gone is said by stays too, which stays")
    output.parent.mkdir()
    output.write_text(row.question)
    assert without._no_words([output], tmp_path, [row]).broken == "metrics/gone has the question of gone"


def test_an_id_is_found_wherever_an_output_has_it(tmp_path: Path) -> None:
    for name, text in {
        "answers.json": '{"answers": [{"id": "gone"}]}',
        "long.json": '{"too_long": ["gone"], "all": {"too_long": 1}}',
        "train.jsonl": '{"id": "kept"}\n{"id": "gone"}\n',
    }.items():
        (tmp_path / name).write_text(text)
        assert without._no_id([tmp_path / name], tmp_path, {"gone"}).broken == f"{name} has gone"
        assert without._no_id([tmp_path / name], tmp_path, {"else"}).broken is None


def test_a_stage_that_was_restored_is_no_stage_that_ran() -> None:
    stages: dict[str, object] = {"prepare": {}, "finetune": {}}
    assert without._every_stage_ran(stages, ["prepare"]).broken == "not run: finetune"
    assert without._every_stage_ran(stages, ["finetune", "prepare"]).broken is None
