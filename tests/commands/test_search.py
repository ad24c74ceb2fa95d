"""`medtune search` on a small pipeline of its own, with experiments that DVC ran."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from medtune.commands import search as searching
from medtune.commands.search import Found, describe_search, search, search_as_json
from medtune.commands.search_space import SEARCHES, read_search
from medtune.core.errors import MedtuneError
from tests.conftest import ROOT, edit_params
from tests.project import LONGEST, attempt, commit, environment, run, wait_until

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
STAGE = """\
import json, math, os, sys, time
from pathlib import Path
from ruamel.yaml import YAML

params = YAML(typ="safe").load(Path("params.yaml"))["finetune"]
rank, rate = params["lora"]["r"], params["learning_rate"]
# As the real stage does, once DVC has deleted what the commit has of the curve.
assert not Path("metrics/curves/loss.csv").exists()
note = Path(".dvc/tmp/medtune-finetune.pid")
note.write_text(str(os.getpid()))
Path("metrics/curves").mkdir(exist_ok=True, parents=True)
rows, best = ["step,examples,loss"], abs(math.log10(rate) + 3) + rank / 1000
for step in (10, 20, 30, 40):
    if rate > 0.1:
        sys.exit(f"error: training diverged: eval_loss is nan at step {step}; lower the rate")
    rows += [f"{step},training,{best}", f"{step},validation,{best + 1 / step}"]
    part = Path("metrics/curves/.part")
    part.write_text("\\n".join(rows) + "\\n")
    part.replace("metrics/curves/loss.csv")
    if rank == 64 and step == 20:
        time.sleep(600)
if rank == 63:
    sys.exit("error: a rank that fails")
Path("metrics/training.json").write_text(json.dumps({"validation_loss": best + 1 / 40}))
"""
PIPELINE = """\
stages:
  prepare:
    cmd: python -c ''
    deps: [data/raw/mine.jsonl]
  finetune:
    cmd: python stage.py
    params: [model, finetune]
    deps: [stage.py]
    metrics:
      - metrics/training.json: {cache: false}
    plots:
      - metrics/curves/loss.csv: {cache: false, x: step, y: loss}
  evaluate:
    cmd: cp metrics/training.json metrics/evaluation.json
    deps: [metrics/training.json]
    metrics:
      - metrics/evaluation.json: {cache: false}
"""
SEARCH = """\
seed: 7
trials: 4
prune_after: null
space:
  finetune.learning_rate: {low: 0.0001, high: 0.01, log: true}
  finetune.lora.r: [8, 16]
"""
FILES = {
    "stage.py": STAGE,
    "dvc.yaml": PIPELINE,
    "searches/rates.yaml": SEARCH,
    "data/raw/mine.jsonl": "{}",
}


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def of_space(space: str, prune_after: str = "null") -> str:
    return f"seed: 7\ntrials: 2\nprune_after: {prune_after}\nspace: {{{space}}}\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit with a run, and the search `rates` of it."""
    folder = tmp_path_factory.mktemp("search")
    write(folder, FILES)
    shutil.copy2(ROOT / "params.yaml", folder)
    edit_params(folder / "params.yaml", {"finetune.learning_rate": 0.01})
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    (folder / ".dvc/.gitignore").write_text((ROOT / ".dvc/.gitignore").read_text())
    run("dvc", "repro", "--quiet", cwd=folder)
    commit(folder, "A run")
    run(*MEDTUNE, "search", "rates", cwd=folder)
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(searching, "POLL", 0.05)
    yield folder


@pytest.fixture
def idle(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in which DVC is not to run anything."""

    def refuse(command: list[str], *_: object) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(searching, "start_dvc", refuse)
    return here


def experiments(folder: Path) -> set[str]:
    return set(
        run("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/*-*", cwd=folder).split()
    )


def outcome(found: Found) -> list[Any]:
    return [(trial.params, trial.loss, trial.state) for trial in found.trials]


def test_the_lowest_validation_loss_is_the_best_and_no_trial_is_evaluated(idle: Path) -> None:
    found = search("rates")
    losses = [trial.loss for trial in found.trials]
    assert len(losses) == len({repr(trial.params) for trial in found.trials}) == 4
    assert found.best is not None and found.best.loss == min(filter(None, losses))
    assert {trial.name for trial in found.trials} == experiments(idle)
    before = run("git", "show", "HEAD:metrics/evaluation.json", cwd=idle)
    for trial in found.trials:
        exp = run(
            "git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{trial.name}", cwd=idle
        ).strip()
        assert (
            json.loads(run("git", "show", f"{exp}:metrics/training.json", cwd=idle))["validation_loss"]
            == trial.loss
        )
        assert run("git", "show", f"{exp}:metrics/evaluation.json", cwd=idle) == before
    assert run("git", "status", "--porcelain", cwd=idle) == ""
    shown = describe_search(found)
    assert f"dvc exp apply {found.best.name} && dvc repro && medtune diff HEAD" in shown
    assert json.loads(search_as_json(found))["best"] == found.best.name


def test_a_search_that_is_killed_and_goes_on_tries_the_same_as_one_that_was_not(here: Path) -> None:
    whole = search("rates", 5)
    for name in experiments(here):
        run("dvc", "exp", "remove", name, cwd=here)
    shutil.rmtree(here / ".dvc/searches")
    command = (*MEDTUNE, "search", "rates", "--trials", "5")
    process = subprocess.Popen(command, cwd=here, env=environment(), start_new_session=True)
    wait_until(lambda: len(experiments(here)) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(LONGEST)
    assert outcome(search("rates", 5)) == outcome(whole)


def test_a_training_above_the_median_is_stopped_while_it_runs(here: Path) -> None:
    # The stage of rank 64 ends in ten minutes, or when it is stopped.
    write(here, {"searches/ranks.yaml": of_space("finetune.lora.r: [64, 16]", prune_after="1")})
    found = search("ranks", 1)
    (trial,) = found.trials
    assert (trial.params, trial.loss, trial.state) == ({"finetune.lora.r": 64}, None, "stopped at step 20")
    assert found.best is None
    assert "nothing to take" in describe_search(found)
    assert trial.name not in experiments(here)
    assert not [*here.glob(".dvc/tmp/exps/standalone/tmp*")]


@pytest.mark.parametrize(("steps", "undisturbed"), [(7, 3), (9, 3), (100, 34)])
def test_a_training_is_stopped_at_no_step_of_its_first_third(steps: int, undisturbed: int) -> None:
    import optuna

    study = optuna.create_study(pruner=searching._pruner(1, steps))
    study.add_trial(
        optuna.trial.create_trial(value=0.0, intermediate_values=dict.fromkeys(range(steps), 0.0))
    )
    trial = study.ask()
    stopped = []
    for step in range(1, steps):
        trial.report(1.0, step)
        stopped.append(trial.should_prune())
    assert stopped.index(True) + 1 == undisturbed


def test_one_that_diverged_is_no_reason_to_stop_and_one_that_fails_is(here: Path) -> None:
    write(here, {"searches/wild.yaml": of_space("finetune.learning_rate: [0.2, 0.3]")})
    assert [trial.state for trial in search("wild").trials] == ["diverged", "diverged"]
    write(here, {"searches/failing.yaml": of_space("finetune.lora.r: [16, 63]")})
    result = attempt(*MEDTUNE, "search", "failing", cwd=here)
    assert result.returncode == 1
    assert re.search(
        r"error: failing-\w{8}-\d+ did not run to its end: a rank that fails\. All", result.stderr
    )
    assert "Traceback" not in result.stderr


def test_what_is_tried_out_is_not_tried_again(idle: Path) -> None:
    write(idle, {"searches/none.yaml": of_space("finetune.lora.r: [16, 8]")})
    with pytest.raises(AssertionError, match=r"finetune\.lora\.r=8"):
        search("none", 1)


def test_a_space_that_is_tried_out_ends_the_search(here: Path) -> None:
    write(here, {"searches/two.yaml": of_space("finetune.lora.r: [16, 8]")})
    found = search("two", 5)
    assert [trial.params for trial in found.trials] == [{"finetune.lora.r": 8}]
    assert found.exhausted
    assert "the space is tried out" in describe_search(found)


def test_an_experiment_that_is_not_what_its_name_says_counts_for_nothing(idle: Path) -> None:
    first, second = (trial.name for trial in search("rates").trials[:2])
    taken, other = (
        run("git", "for-each-ref", f"--format=%({field})", f"refs/exps/*/*/{name}", cwd=idle).strip()
        for field, name in (("refname", first), ("objectname", second))
    )
    run("git", "update-ref", taken, other, cwd=idle)
    with pytest.raises(MedtuneError, match=f"run: dvc exp remove {first}"):
        search("rates")
    run("dvc", "exp", "remove", first, cwd=idle)
    found = search("rates")
    assert found.trials[0].state == "its experiment was removed"
    assert found.best is not None and found.best.name != first


def test_a_loss_that_was_edited_is_not_shown(idle: Path) -> None:
    name = search("rates").trials[0].name
    ref, tip = run(
        "git", "for-each-ref", "--format=%(refname) %(objectname)", f"refs/exps/*/*/{name}", cwd=idle
    ).split()
    run("git", "checkout", "--quiet", "--detach", tip, cwd=idle)
    (idle / "metrics/training.json").write_text('{"validation_loss": 0.0}')
    commit(idle, "Better")
    run("git", "update-ref", ref, "HEAD", cwd=idle)
    run("git", "checkout", "--quiet", "main", cwd=idle)
    with pytest.raises(MedtuneError, match=f"experiment {name}: not of this search"):
        search("rates")


def test_another_space_or_another_training_is_another_search_and_more_trials_are_not(idle: Path) -> None:
    known = search("rates").name
    assert search("rates", 3).name == known
    write(
        idle, {"searches/rates.yaml": SEARCH.replace("trials: 4", "trials: 2").replace("[8, 16]", "[8, 32]")}
    )
    with pytest.raises(AssertionError, match="exp") as refused:
        search("rates")
    assert known not in str(refused.value)


def test_what_is_not_the_run_of_its_commit_is_refused(idle: Path) -> None:
    edit_params(idle / "params.yaml", {"finetune.lora.alpha": 7})
    with pytest.raises(MedtuneError, match=r"^not committed: params\.yaml; run `dvc repro`"):
        search("rates")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            of_space("finetune.seed: [1, 2]"),
            r"'finetune\.seed' is none of .* accepted: finetune\.learn",
        ),
        (of_space("answer.max_new_tokens: [1, 2]"), r"'answer\.max_new_tokens' is none of"),
        (of_space("finetune.lora.rank: [1, 2]"), r"did you mean 'finetune\.lora\.r"),
        (of_space("finetune.lora.r: [8]"), r"space\.finetune\.lora\.r must be a list of two or more"),
        (of_space("finetune.lora.r: [8, 8]"), "has a value twice"),
        (
            of_space("finetune.lora.r: [8, 0]"),
            r"with finetune\.lora\.r: 0, params\.yaml: .*greater than or equal",
        ),
        (of_space("finetune.lora.r: {low: 1.5, high: 3}"), r"with finetune\.lora\.r: 1\.5, .*integer"),
        (of_space("finetune.lora.r: {low: 3, high: 3}"), "low must be below high"),
        (
            of_space("finetune.lora.r: {low: 3, hi: 5}"),
            r"unknown key 'space\.finetune\.lora\.r\.hi'; did you mean 'high'",
        ),
        (of_space("finetune.warmup: {low: 0.0, high: 0.1, log: true}"), "low above 0, and no step"),
        (of_space("finetune.epochs: [1, 2]", prune_after="5"), r"accepted with it: prune_after: null"),
        (of_space("finetune.schedule: ['a b', cosine]"), "accepted are words"),
        ("seed: 7\n", r"prune_after is missing|trials is missing"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_before_anything_runs(idle: Path, text: str, expected: str) -> None:
    write(idle, {"searches/wrong.yaml": text})
    with pytest.raises(MedtuneError, match=expected) as refused:
        search("wrong")
    assert str(refused.value).startswith("searches/wrong.yaml: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["../rates", "Rates", "none"])
def test_a_search_that_is_not_there_is_named(idle: Path, name: str) -> None:
    with pytest.raises(MedtuneError, match=f"{name}"):
        search(name)


def test_every_shipped_search_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = [path.stem for path in SEARCHES.glob("*.yaml")]
    assert "lora" in names
    for name in names:
        read_search(name)
