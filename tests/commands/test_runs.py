"""`medtune runs` on a small pipeline of its own, with a grid that DVC really ran."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtune.commands.runs import NOTHING, Run, describe_runs, find_runs
from medtune.core.errors import MedtuneError
from medtune.run.code import digest
from tests.project import attempt, commit, run

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
PARAMS = """\
data: {seed: 7, kinds: {definition: {train: 10}}}
finetune:
  seed: 7
  learning_rate: 0.001
  lora: {r: 8, alpha: 16}
"""
STAGE = """\
import json
from pathlib import Path
from ruamel.yaml import YAML

params = YAML(typ="safe").load(Path("params.yaml"))["finetune"]
rank, rate = params["lora"]["r"], params["learning_rate"]
if rank == 32:
    raise SystemExit("a rank that fails")
Path("metrics").mkdir(exist_ok=True)
gain = rank / 100 + rate
interval = {"gain_low": gain - 0.05, "gain_high": gain + 0.05}
headline = {"accuracy": gain + 0.1, "gain": gain, "verdict": "better", "token_f1": 0.5} | interval
Path("metrics/evaluation.json").write_text(json.dumps(headline))
Path("metrics/training.json").write_text(json.dumps({"validation_loss": 1 / rank}))
"""
PIPELINE = """\
stages:
  finetune:
    cmd: python stage.py
    params: [finetune]
    deps: [stage.py]
    metrics:
      - metrics/evaluation.json: {cache: false}
      - metrics/training.json: {cache: false}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit with a run; on it a grid of two parameters, a failed experiment and a queued one."""
    folder = tmp_path_factory.mktemp("runs")
    for name, text in {"params.yaml": PARAMS, "stage.py": STAGE, "dvc.yaml": PIPELINE}.items():
        (folder / name).write_text(text)
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    run("dvc", "repro", "--quiet", cwd=folder)
    commit(folder, "A run")
    grid = ("--set-param", "finetune.lora.r=4,16", "--set-param", "finetune.learning_rate=0.001,0.01")
    run("dvc", "exp", "run", "--queue", *grid, cwd=folder)
    run("dvc", "exp", "run", "--queue", "--name", "too-much", "--set-param", "finetune.lora.r=32", cwd=folder)
    run("dvc", "exp", "run", "--run-all", cwd=folder)
    run("dvc", "exp", "run", "--queue", "--name", "later", "--set-param", "finetune.lora.r=64", cwd=folder)
    return folder


@pytest.fixture
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("COLUMNS", "160")
    yield repository


def rows(table: str) -> dict[str, list[str]]:
    """Cells by run; columns lie two blanks apart."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    return {name: others for name, *others in cells}


def test_a_grid_is_a_table_of_what_differs_and_the_headline_metrics(here: Path) -> None:
    table = rows(describe_runs(find_runs()))
    assert table["run"] == [
        "learning_rate",
        "lora.r",
        "accuracy",
        "gain",
        "verdict",
        "token_f1",
        "validation_loss",
        "state",
    ]
    assert table["main"] == ["0.001", "8", "0.181", "0.08 [0.03, 0.13]", "better", "0.500", "0.125"]
    assert table["workspace"] == table["main"]
    grid = {tuple(cells[:2]): cells[2] for cells in table.values() if cells[1] in ("4", "16")}
    assert grid == {
        ("0.001", "4"): "0.141",
        ("0.01", "4"): "0.150",
        ("0.001", "16"): "0.261",
        ("0.01", "16"): "0.270",
    }


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "r: 8", "r: 9"),
        ("metrics/evaluation.json", '"accuracy": 0.1', '"accuracy": 0.9'),
        ("stage.py", "rank / 100", "rank / 10"),
    ],
    ids=["parameters", "metrics", "a file that a stage reads"],
)
def test_what_dvc_did_not_run_has_no_metrics(here: Path, file: str, old: str, new: str) -> None:
    path = here / file
    original = path.read_text()
    path.write_text(original.replace(old, new))
    try:
        shown = describe_runs(find_runs())
    finally:
        path.write_text(original)
    assert rows(shown)["workspace"][2:] == ["not run"]
    assert rows(shown)["main"][2] == "0.181"
    assert shown.endswith("run: dvc repro")
    assert "not run" not in describe_runs(find_runs())


def test_a_run_up_to_a_stage_does_not_show_what_the_stages_behind_it_made_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = PIPELINE.replace("      - metrics/evaluation.json: {cache: false}\n", "")
    evaluate = """\
  evaluate:
    cmd: sed s/validation_loss/accuracy/ metrics/training.json > metrics/evaluation.json
    deps: [metrics/training.json]
    metrics:
      - metrics/evaluation.json: {cache: false}
"""
    stage = STAGE.replace("metrics/evaluation.json", "metrics/other.json")
    for name, text in {"params.yaml": PARAMS, "stage.py": stage, "dvc.yaml": stages + evaluate}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".gitignore").write_text("/metrics/other.json\n")
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    run("dvc", "repro", "--quiet", cwd=tmp_path)
    commit(tmp_path, "A run")
    trial = ("--set-param", "finetune.lora.r=4", "finetune")
    run("dvc", "exp", "run", "--temp", "--name", "trained", *trial, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    (found,) = (one for one in find_runs() if one.is_experiment)
    assert (found.state, found.metrics) == ("in part", {"validation_loss": 0.25})
    assert describe_runs(find_runs()).splitlines()[-1].startswith("in part: the stages whose metrics")


def test_what_failed_or_waits_is_shown_as_such_and_has_no_metrics(here: Path) -> None:
    table = rows(describe_runs(find_runs()))
    assert table["too-much"] == ["0.001", "32", "failed"]
    assert table["later"] == ["0.001", "64", "queued"]


def test_the_table_fits_and_says_what_it_has_no_room_for(here: Path) -> None:
    whole = describe_runs(find_runs(), width=160)
    assert "no room" not in whole
    widest = max(map(len, whole.splitlines()))
    assert widest <= 160
    assert describe_runs(find_runs(), width=widest) == whole
    narrow = describe_runs(find_runs(), width=widest - 1)
    assert max(map(len, narrow.splitlines())) < widest
    assert narrow.endswith("no room for: token_f1; a wider terminal or --json has them")
    assert "lora.r" in narrow.splitlines()[0] and "token_f1" not in narrow.splitlines()[0]


def test_what_experiments_try_stays_where_there_is_little_room(here: Path) -> None:
    narrow = describe_runs(find_runs(), width=80)
    assert max(len(line) for line in narrow.splitlines() if not line.startswith(("no room", "in part"))) <= 80
    header = narrow.splitlines()[0].split()
    assert {"run", "learning_rate", "lora.r", "accuracy", "verdict", "validation_loss"} <= set(header)
    narrowest = describe_runs(find_runs(), width=20)
    assert "no room for: finetune.learning_rate, finetune.lora.r, " in narrowest
    assert {"accuracy", "verdict", "validation_loss"} <= set(narrowest.splitlines()[0].split())


def test_a_section_is_left_out_of_a_name_only_where_that_leaves_no_doubt() -> None:
    runs = [
        Run(
            str(seed),
            "-",
            "",
            True,
            {"data.seed": 1, "finetune.seed": seed, "finetune.lora.r": seed},
            {"gain": 0},
        )
        for seed in (1, 2)
    ]
    assert rows(describe_runs(runs))["run"][:2] == ["finetune.seed", "lora.r"]


def test_programs_get_full_names_and_unrounded_values(here: Path) -> None:
    found = {row["run"]: row for row in json.loads(run(*MEDTUNE, "runs", "--json", cwd=here))}
    assert found["main"]["params"] == {"finetune.learning_rate": 0.001, "finetune.lora.r": 8}
    assert found["main"]["metrics"]["gain_low"] == 8 / 100 + 0.001 - 0.05
    assert found["main"]["commit"] == run("git", "rev-parse", "HEAD", cwd=here)[:7]
    assert (found["main"]["state"], found["too-much"]["state"]) == ("success", "failed")


def test_earlier_commits_are_shown_where_asked_for(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    run("git", "clone", "--quiet", str(repository), str(folder), cwd=tmp_path)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("alpha: 16", "alpha: 8"))
    run("dvc", "repro", "--quiet", cwd=folder)
    commit(folder, "A smaller alpha")
    first = run("git", "rev-parse", "HEAD~1", cwd=folder)[:7]
    assert first not in run(*MEDTUNE, "runs", cwd=folder)
    for choice in (("-n", "2"), ("--all-commits",), ("HEAD", "HEAD~1")):
        table = rows(run(*MEDTUNE, "runs", *choice, cwd=folder, env={"COLUMNS": "160"}))
        assert table["run"][0] == "lora.alpha"
        assert table["main"][0] == "8"
        assert [cells[0] for name, cells in table.items() if name.startswith(("main~", first))] == ["16"]


CODE = """\
stages:
  code:
    cmd: cp digest.json digests/prepare.json
    deps: [medtune, stages, requirements/runtime.txt]
    outs:
      - digests/prepare.json: {cache: false, persist: true}
  prepare:
    cmd: "echo '{\\"accuracy\\": 0.5}' > metrics/evaluation.json"
    deps: [digests/prepare.json]
    metrics:
      - metrics/evaluation.json: {cache: false}
"""


def test_a_commit_whose_code_was_edited_after_its_run_has_no_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc.lock` and digests are the old ones; the figures of the code before were shown as its own."""
    files = {
        "params.yaml": "data: {seed: 7}\n",
        "dvc.yaml": CODE,
        "requirements/runtime.txt": "torch==2.13.0\n",
        "medtune/rule.py": "RIGHT = 1\n",
        "stages/prepare.py": "from medtune import rule\n",
        "digests/.gitignore": "",
        "metrics/.gitignore": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "digest.json").write_text(
        json.dumps(digest("stages.prepare", quantised=False, root=tmp_path))
    )
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    run("dvc", "repro", "--quiet", cwd=tmp_path)
    commit(tmp_path, "A run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "medtune/rule.py").write_text("RIGHT = 1  # a comment\n")
    commit(tmp_path, "A comment")
    assert [one.state for one in find_runs(commits=2)] == ["", "", ""]
    (tmp_path / "medtune/rule.py").write_text("RIGHT = 2\n")
    commit(tmp_path, "Another rule, not run")
    workspace, after, *before = find_runs(commits=3)
    assert [(one.state, one.metrics) for one in (workspace, after)] == [("not run", {})] * 2
    assert [one.metrics["accuracy"] for one in before] == [0.5, 0.5]


def test_without_a_run_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("git", "init", "--quiet", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert describe_runs(find_runs()) == NOTHING
    commit(tmp_path, "Nothing but DVC")
    assert describe_runs(find_runs()) == NOTHING


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("no-such-commit",), "no-such-commit"), (("-n", "many"), "invalid int value")],
)
def test_a_mistake_is_one_line(here: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = attempt(*MEDTUNE, "runs", *arguments, cwd=here)
    assert result.returncode != 0
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_outside_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MedtuneError, match="DVC cannot list runs here: you are not inside of a DVC repository"
    ):
        find_runs()
