"""`medtune seeds` on a small pipeline of its own, with experiments that DVC ran; once on the real one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from medtune.commands import seeds
from medtune.commands.experiments import forget_killed, only_here
from medtune.commands.seeds import describe_seeds, seeds_as_json, train_seeds
from medtune.core.errors import MedtuneError
from medtune.evaluate.seeds import collect_seeds, noise_band, read_seeds, seeds_fingerprint
from medtune.run.lock_file import read_lock
from tests.project import LONGEST, attempt, commit, environment, run, wait_until

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
PARAMS = """\
model: {source: ./base}
finetune:
  seed: 7
  lora: {r: 8}
"""
STAGE = """\
import json
from pathlib import Path
from ruamel.yaml import YAML

seed = YAML(typ="safe").load(Path("params.yaml"))["finetune"]["seed"]
if Path("base/weights").read_text() != "0.25" or Path("data/raw/mine.jsonl").read_text() != "{}":
    raise SystemExit("lacks what git ignores")
if seed == 10:
    raise SystemExit("a seed that fails")
Path("metrics/kinds").mkdir(exist_ok=True, parents=True)
accuracy = {7: 0.5, 8: 0.25, 9: 0.75}[seed]
headline = {"accuracy": accuracy, "gain": accuracy, "gain_low": 0.0, "token_f1": 0.5}
Path("metrics/evaluation.json").write_text(json.dumps(headline))
Path("metrics/kinds/yes%2Fno.json").write_text(json.dumps({"accuracy": accuracy / 2}))
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
      - metrics/evaluation.json: {cache: false}
      - metrics/kinds: {cache: false}
"""
FILES = {
    "params.yaml": PARAMS,
    "stage.py": STAGE,
    "dvc.yaml": PIPELINE,
    ".gitignore": "/base/\n/data/raw/*.jsonl\n",
    "data/raw/.gitkeep": "",
    "data/raw/mine.jsonl": "{}",
    "base/weights": "0.25",
}


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit with a run, of whose seeds 8 and 9 are there too."""
    folder = tmp_path_factory.mktemp("seeds")
    write(folder, FILES)
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    run("dvc", "repro", "--quiet", cwd=folder)
    commit(folder, "A run")
    printed = json.loads(run(*MEDTUNE, "seeds", "--n", "3", "--json", cwd=folder))
    assert printed["all"]["accuracy"]["band"] == pytest.approx(4.3027 * 0.25 * 2**0.5, rel=1e-4)
    assert printed["all"]["token_f1"]["band"] is None
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it in which DVC is not to run anything."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)

    def refuse(command: list[str], lock: int) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(seeds, "_run_dvc", refuse)
    yield folder


def experiments(folder: Path) -> set[str]:
    names = run("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/seed-*", cwd=folder)
    return set(names.split())


def test_every_seed_is_an_experiment_and_every_figure_is_kept(here: Path) -> None:
    found = read_seeds(here / "metrics/seeds.json")
    assert found is not None
    assert found.fingerprint == seeds_fingerprint(read_lock())
    assert experiments(here) == {f"seed-{found.fingerprint[:8]}-{seed}" for seed in (8, 9)}
    assert found.seeds == [7, 8, 9]
    assert found.all["accuracy"].values == [0.5, 0.25, 0.75]
    assert list(found.all) == ["accuracy", "gain", "token_f1"]
    assert found.kinds["yes/no"]["accuracy"].values == [0.25, 0.125, 0.375]
    assert run("git", "status", "--porcelain", cwd=here) == "?? metrics/seeds.json\n"


def test_what_is_there_is_not_run_again_also_after_a_commit(here: Path) -> None:
    file = here / "metrics/seeds.json"
    before = file.read_bytes()
    file.unlink()
    train_seeds(3)
    assert file.read_bytes() == before
    commit(here, "Its seeds")
    assert train_seeds(2).seeds == [7, 8]


def test_a_run_with_another_parameter_has_other_seeds(here: Path) -> None:
    write(here, {"params.yaml": PARAMS.replace("r: 8", "r: 16")})
    run("dvc", "repro", "--quiet", cwd=here)
    commit(here, "A higher rank")
    with pytest.raises(AssertionError, match=r"finetune\.seed=8"):
        train_seeds(2)


def test_the_table_has_points_and_says_what_the_band_means(here: Path) -> None:
    shown = describe_seeds(train_seeds(3)).splitlines()
    cells = {tuple(line.split()[:2]): line.split()[2:] for line in shown}
    assert cells["yes/no", "accuracy,"] == ["points", "25.0", "12.5", "12.5", "37.5", "76.1"]
    assert cells["all", "accuracy,"] == ["points", "50.0", "25.0", "25.0", "75.0", "152.1"]
    assert cells["all", "token_f1"] == ["0.500", "0.000", "0.500", "0.500", "none", "seen"]
    assert shown[5].startswith("3 runs: finetune.seed 7, 8, 9")
    assert "differ by no more, 95 times of 100" in shown[6]
    assert "is no proof that a seed changes nothing" in shown[-1]


def test_a_kind_may_be_called_like_all_questions() -> None:
    kinds = [{"all": {"accuracy": share}} for share in (0.0, 1.0)]
    found = collect_seeds("0" * 64, [1, 2], [{"accuracy": 0.5}, {"accuracy": 0.75}], kinds)
    assert [line.split()[3] for line in describe_seeds(found).splitlines()[1:3]] == ["50.0", "62.5"]
    content = json.loads(seeds_as_json(found))
    assert content["kinds"]["all"]["accuracy"]["band"] == noise_band([0.0, 1.0])


@pytest.mark.parametrize("n", ["1", "0", "-3"])
def test_too_few_runs_are_refused(here: Path, n: str) -> None:
    result = attempt(*MEDTUNE, "seeds", "--n", n, cwd=here)
    assert (result.returncode, result.stderr) == (1, f"error: --n is {n}: a spread takes at least 2 runs\n")


@pytest.mark.parametrize(
    ("file", "committed", "expected"),
    [
        ("params.yaml", False, r"^not committed: params\.yaml; run `dvc repro` and commit"),
        ("metrics/evaluation.json", False, r"^not committed: metrics/evaluation\.json;"),
        ("params.yaml", True, r"^not as the last run has it: finetune \(params\.yaml\); run `dvc repro`"),
        ("stage.py", False, r"^not committed: stage\.py;"),
        ("stage.py", True, r"^not as the last run has it: finetune \(stage\.py\)"),
    ],
)
def test_what_is_not_the_run_of_its_commit_is_refused(
    here: Path, file: str, committed: bool, expected: str
) -> None:
    edited = (here / file).read_text().replace("8", "16").replace("0.5", "0.6")
    write(here, {file: edited})
    if committed:
        commit(here, "An edit")
    with pytest.raises(MedtuneError, match=expected):
        train_seeds(3)


def test_without_a_commit_there_is_nothing_to_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, FILES)
    with pytest.raises(MedtuneError, match="no git commit here"):
        train_seeds(2)
    run("git", "init", "--quiet", cwd=tmp_path)
    with pytest.raises(MedtuneError, match="no git commit here"):
        train_seeds(2)
    commit(tmp_path, "No DVC")
    with pytest.raises(MedtuneError, match="you are not inside of a DVC repository"):
        train_seeds(2)


def test_a_seed_that_fails_is_an_error_and_the_others_stay(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    before = experiments(folder)
    result = attempt(*MEDTUNE, "seeds", "--n", "4", cwd=folder)
    assert result.returncode == 1
    assert "a seed that fails" in result.stderr
    assert "error: seed 10 did not run to its end" in result.stderr
    assert "Traceback" not in result.stderr
    assert experiments(folder) == before


def test_an_experiment_that_is_not_what_its_name_says_is_not_taken(here: Path) -> None:
    fingerprint = seeds_fingerprint(read_lock())
    (other,) = run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/*-9", cwd=here).split()
    (taken,) = run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/*-8", cwd=here).split()
    run("git", "update-ref", taken, other, cwd=here)
    with pytest.raises(MedtuneError, match=f"run: dvc exp remove seed-{fingerprint[:8]}-8"):
        train_seeds(2)


def test_what_a_kill_while_dvc_begins_leaves_is_undone_with_the_command_that_is_named(here: Path) -> None:
    write(here, {"params.yaml": PARAMS.replace("seed: 7", "seed: 8"), ".dvc/tmp/repro.dat": ""})
    run("git", "add", "--force", "params.yaml", ".dvc/tmp/repro.dat", cwd=here)
    with pytest.raises(MedtuneError, match="was killed as it began") as refused:
        train_seeds(3)
    run(*str(refused.value).partition("with: ")[2].split(), cwd=here)
    assert train_seeds(3).seeds == [7, 8, 9]


def test_the_folder_of_a_killed_experiment_goes_with_its_next_run_and_no_other(here: Path) -> None:
    folders = {}
    for name in ("seed-12345678-8", "seed-12345678-80", "elsewhere"):
        folder = here / ".dvc/tmp/exps/standalone" / f"tmp-{name}"
        if name == "elsewhere":
            name, folder = "seed-12345678-8", here / "elsewhere"
        folder.mkdir()
        folders[folder] = folder.name == "tmp-seed-12345678-8"
        note = {"name": name, "root_dir": str(folder)}
        write(here, {f".dvc/tmp/exps/standalone/run/{folder.name}/1.run": json.dumps(note)})
    write(here, {".dvc/tmp/exps/standalone/run/broken/1.run": "{"})
    forget_killed("seed-12345678-8")
    assert {folder: not folder.is_dir() for folder in folders} == folders


def test_two_at_a_time_are_refused(here: Path) -> None:
    with only_here("medtune seeds"), pytest.raises(MedtuneError, match="still runs in this folder"):
        train_seeds(3)


@pytest.mark.slow
def test_other_seeds_give_other_adapters_and_a_killed_one_goes_on_to_the_same(
    finished_tiny_project: Path, tmp_path: Path
) -> None:
    project = shutil.copytree(finished_tiny_project, tmp_path / "medtune", symlinks=True)
    env = {"MEDTUNE_PROGRESS": str(tmp_path / "progress")}
    command = (*MEDTUNE, "seeds", "--n", "2")

    process = subprocess.Popen(command, cwd=project, env=environment(env), start_new_session=True)
    whole = "progress/*/finetune-*/*/checkpoint-6/manifest.json"
    wait_until(lambda: any(tmp_path.glob(whole)), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(LONGEST)
    resumed = attempt(*command, cwd=project, env=env)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step" in resumed.stderr
    assert not [*project.glob(".dvc/tmp/exps/standalone/tmp*")]
    written, (name,) = (project / "metrics/seeds.json").read_bytes(), experiments(project)
    locks = {which: run("git", "show", f"{which}:dvc.lock", cwd=project) for which in ("HEAD", tip(project))}
    assert len({adapter(lock) for lock in locks.values()}) == 2

    again = attempt(*command, cwd=project, env=env)
    assert again.returncode == 0
    assert f"{name} is there already" in again.stderr
    assert "Running stage" not in again.stderr

    run("dvc", "exp", "remove", name, cwd=project)
    shutil.rmtree(project / ".dvc/cache/runs")
    anew = attempt(*command, cwd=project, env={"MEDTUNE_PROGRESS": str(tmp_path / "other")})
    assert "Running stage 'finetune'" in anew.stderr
    assert "going on from step" not in anew.stderr
    assert run("git", "show", f"{tip(project)}:dvc.lock", cwd=project) in locks.values()
    assert (project / "metrics/seeds.json").read_bytes() == written


def tip(project: Path) -> str:
    """The commit of the only experiment."""
    return run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/seed-*", cwd=project).strip()


def adapter(lock: str) -> str:
    """The hash of the weights in a `dvc.lock`."""
    return lock.partition("path: models/adapter/adapter_model.safetensors")[2].split("md5: ")[1].split()[0]
