"""`medtune diff` on a small pipeline of its own: commits, an experiment, files, and runs that never were."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtune.commands.diff import describe_diff, diff_as_json, make_diff, require_no_loss
from medtune.commands.revisions import RESULTS, read_predictions
from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import parse_yaml
from medtune.evaluate.seeds import SEEDS_FILE, collect_seeds, seeds_fingerprint
from tests.project import attempt, commit, run

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
PARAMS = """\
finetune: {rank: 8}
evaluate: {seed: 7, partial_f1: 0.5, choice_rule: sum, near_relative: 0.4, set_kinds: []}
"""
DIGEST = """\
import json
from pathlib import Path
from medtune.run.code import digest

Path("digests").mkdir(exist_ok=True)
found = digest("stages.evaluate", quantised=False, root=Path.cwd())
Path("digests/evaluate.json").write_text(json.dumps(found))
"""
EVALUATE = """\
import json
from pathlib import Path
from ruamel.yaml import YAML

rank = YAML(typ="safe").load(Path("params.yaml"))["finetune"]["rank"]
Path("metrics").mkdir(exist_ok=True)
rows = [
    {"id": f"{kind}{number}", "kind": kind, "group": f"{kind}{number // 2}", "question": "<b>Q</b>\\x1b[31m?",
     "ground_truth": "yes" if number % 2 else "no", "prediction": "yes" if number < 4 * rank else "no"}
    for kind in ("closed", "open") for number in range(80)
]
Path("metrics/evaluation_results.json").write_text(json.dumps({"results": rows}))
"""
PIPELINE = """\
stages:
  code:
    cmd: python tools/digest.py
    deps: [medtune, stages, requirements/runtime.txt]
    outs:
      - digests/evaluate.json: {cache: false, persist: true}
  evaluate:
    cmd: python tools/evaluate.py
    deps: [digests/evaluate.json]
    params: [finetune]
    outs: [metrics/evaluation_results.json]
"""
FILES = {
    "params.yaml": PARAMS,
    "dvc.yaml": PIPELINE,
    "tools/digest.py": DIGEST,
    "tools/evaluate.py": EVALUATE,
    "medtune/__init__.py": "",
    "stages/__init__.py": "",
    "stages/evaluate.py": "VALUE = 1\n",
    "requirements/runtime.txt": "numpy==2.0.0\n",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits with their runs, of rank 8 and 16, an experiment of rank 2, and commits that lie."""
    folder = tmp_path_factory.mktemp("diff")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    for rank in (8, 16):
        (folder / "params.yaml").write_text(PARAMS.replace("8", str(rank)))
        run("dvc", "repro", "--quiet", cwd=folder)
        commit(folder, f"Rank {rank}")
        run("git", "tag", f"rank-{rank}", cwd=folder)
    run("dvc", "exp", "run", "--temp", "--name", "small", "--set-param", "finetune.rank=2", cwd=folder)
    for name, file, text in (
        ("other-params", "params.yaml", PARAMS.replace("8", "64")),
        ("other-code", "stages/evaluate.py", "VALUE = 2\n"),
        ("a-comment", "stages/evaluate.py", "VALUE = 1  # no other meaning\n"),
        ("another-numpy", "requirements/runtime.txt", "numpy==2.0.0\nother==1\n"),
    ):
        run("git", "checkout", "--quiet", "-b", name, "rank-16", cwd=folder)
        (folder / file).write_text(text)
        commit(folder, name)
    run("git", "checkout", "--quiet", "main", cwd=folder)
    return folder


@pytest.fixture
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(repository)
    yield repository
    (repository / SEEDS_FILE).unlink(missing_ok=True)
    run("git", "checkout", "--quiet", "--force", "main", cwd=repository)
    run("dvc", "checkout", "--quiet", "--force", cwd=repository)


def write(path: Path, right: int, n: int = 60) -> str:
    rows = [
        {"id": str(i), "ground_truth": "yes", "prediction": "yes" if i < right else "no"} for i in range(n)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.usefixtures("here")
def test_two_commits_an_experiment_and_the_workspace_are_compared_question_by_question() -> None:
    diff = make_diff("rank-8", "rank-16")
    one = diff.comparisons["all"]["accuracy"]
    # Of each kind the answers 33, 35, ... 63 are right with the higher rank, and 32, 34, ... 62 no longer.
    assert (one["gained"], one["lost"], one["difference"]) == (32, 32, 0)
    assert one["verdict"] == "not shown"
    text = describe_diff(diff)
    assert "unchanged" in text
    assert "closed, A: said no 48, yes 32; right are no 40, yes 40" in text
    assert "closed, B: said no 16, yes 64; right are no 40, yes 40" in text
    assert make_diff("rank-16").comparisons == make_diff("rank-16", "workspace").comparisons
    assert len(make_diff("small", "main").before) == 160


@pytest.mark.usefixtures("here")
def test_the_same_for_programs_and_for_a_pull_request() -> None:
    diff = make_diff("rank-8", "rank-16")
    content = json.loads(diff_as_json(diff))
    assert (content["before"], content["after"], content["n"]) == ("rank-8", "rank-16", 160)
    assert (len(content["gained"]), len(content["lost"])) == (32, 32)
    assert set(content["comparisons"]["kinds"]) == {"closed", "open"}
    page = describe_diff(diff, markdown=True, examples=1)
    assert "<b>" not in page and "\x1b" not in page and "&#60;b&#62;Q" in page
    assert "\x1b" not in describe_diff(diff)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("other-params", r"not of its finetune in params.yaml, .*git checkout other-params"),
        ("other-code", r"not of its code \(digests/evaluate.json\)"),
        ("no-such", r"'no-such' is no commit, branch, tag or experiment here .*medtune runs"),
        ("missing.jsonl", r"missing.jsonl: no such file"),
    ],
)
def test_a_run_that_never_was_is_not_vouched_for(revision: str, words: str) -> None:
    with pytest.raises(MedtuneError, match=words):
        read_predictions(revision)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("revision", ["a-comment", "another-numpy", "small", "workspace", "HEAD~1"])
def test_what_changes_no_meaning_is_no_other_code(revision: str) -> None:
    assert len(read_predictions(revision)) == 160


def test_a_workspace_that_was_edited_is_not_its_last_run(here: Path) -> None:
    (here / RESULTS).unlink()
    (here / RESULTS).write_text('{"results": []}')
    with pytest.raises(MedtuneError, match=r"is not what its dvc.lock names; run `dvc repro`"):
        read_predictions("workspace")
    (here / "params.yaml").write_text(PARAMS.replace("8", "4"))
    with pytest.raises(MedtuneError, match=r"not of its finetune in params.yaml.*run `dvc repro`"):
        read_predictions("workspace")


def test_what_is_not_here_and_in_no_remote_names_the_command(here: Path, tmp_path: Path) -> None:
    run("git", "clone", "--quiet", str(here), str(tmp_path / "clone"), cwd=tmp_path)
    for revision, words in (("rank-8", "git checkout rank-8 && dvc pull"), ("workspace", "dvc pull")):
        shown = attempt(*MEDTUNE, "diff", revision, "rank-16", cwd=tmp_path / "clone")
        assert shown.returncode == 1
        assert f"run `dvc push`, then here `{words}`" in shown.stderr
        assert shown.stderr.count("\n") == 1


def test_a_damaged_object_is_no_prediction(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here, tmp_path / "copy", symlinks=True)
    for path in (tmp_path / "copy/.dvc/cache").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_text('{"results": []}')
    shown = attempt(*MEDTUNE, "diff", "rank-8", "rank-16", cwd=tmp_path / "copy")
    assert shown.returncode == 1
    assert "rank-8: metrics/evaluation_results.json is not what its dvc.lock names" in shown.stderr


@pytest.mark.usefixtures("here")
def test_a_revision_before_the_pipeline_ran_has_no_predictions(here: Path) -> None:
    run("git", "checkout", "--quiet", "-b", "before", "main", cwd=here)
    run("git", "rm", "--quiet", "dvc.lock", cwd=here)
    commit(here, "Not run")
    with pytest.raises(MedtuneError, match=r"before: has no metrics/evaluation_results.json"):
        read_predictions("before")


def test_files_are_compared_and_a_shown_loss_fails_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    many, few = write(tmp_path / "many.jsonl", 50), write(tmp_path / "few.jsonl", 30)
    assert make_diff(few, many).comparisons["all"]["accuracy"]["verdict"] == "better"
    require_no_loss(make_diff(few, many))
    require_no_loss(make_diff(many, many))
    with pytest.raises(MedtuneError, match=r"worse: exact answers: -33.3 points"):
        require_no_loss(make_diff(many, few))
    assert attempt(*MEDTUNE, "diff", many, few, cwd=tmp_path).returncode == 0
    failed = attempt(*MEDTUNE, "diff", many, few, "--fail-if-worse", "--json", cwd=tmp_path)
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["worse"][0] == "exact answers: -33.3 points"


def test_the_loss_that_is_tolerated_is_a_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    many, few = write(tmp_path / "many.jsonl", 50), write(tmp_path / "few.jsonl", 30)
    loss = "diff: {tolerated_loss: {accuracy: 0.34, token_f1: 0.34, chrf: 0.34}}\n"
    (tmp_path / "params.yaml").write_text(PARAMS + loss)
    require_no_loss(make_diff(many, few))
    (tmp_path / "params.yaml").write_text(PARAMS + loss.replace("accuracy: 0.34", "accuracy: 0.33"))
    with pytest.raises(MedtuneError, match=r"worse: exact answers: -33\.3 points$"):
        require_no_loss(make_diff(many, few))
    (tmp_path / "params.yaml").write_text(PARAMS + "diff: {tolerated_loss: {acuracy: 0.33}}\n")
    with pytest.raises(MedtuneError, match=r"diff.tolerated_loss.*'acuracy'|acuracy.*accuracy"):
        make_diff(many, few)


def test_other_questions_are_refused_and_counted_where_the_common_ones_are_asked_for(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.jsonl", 30), write(tmp_path / "other.jsonl", 30, n=50)
    shown = attempt(*MEDTUNE, "diff", one, other, cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "10 only in" in shown.stderr
    shown = attempt(*MEDTUNE, "diff", one, other, "--common", cwd=tmp_path)
    assert shown.returncode == 0
    assert "50 questions in both" in shown.stdout
    assert "10 questions left out: 10 only in A, 0 only in B" in shown.stdout


def test_one_question_one_group_and_no_repository_are_no_traceback(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.jsonl", 0, n=1), write(tmp_path / "other.jsonl", 1, n=1)
    shown = attempt(*MEDTUNE, "diff", one, other, cwd=tmp_path)
    assert "not shown (nothing could be, in 1 group)" in shown.stdout
    assert "B: " + other + "; 1 question in both" in shown.stdout
    assert "gained 1 and lost 0 of 1 question in 1 group;" in shown.stdout
    assert shown.stderr == ""
    assert "nan" not in shown.stdout
    shown = attempt(*MEDTUNE, "diff", "main", cwd=tmp_path)
    assert shown.returncode == 1
    assert shown.stderr.startswith(
        "error: 'main' is no file of predictions (.json, .jsonl), and here is no repo"
    )


def test_a_file_of_another_name_is_told_which_are_accepted(here: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.txt", 30)
    accepted = r"mine\.txt: not called what a file of predictions is: \.jsonl .* \.json .*; rename it"
    with pytest.raises(MedtuneError, match=accepted):
        read_predictions(file)
    shown = attempt(*MEDTUNE, "diff", file, file, cwd=tmp_path)
    assert (shown.returncode, shown.stderr.count("\n")) == (1, 1)
    assert re.search(accepted, shown.stderr)


def test_questions_that_differ_in_their_kind_alone_are_not_said_to_read_differently(tmp_path: Path) -> None:
    rows = [{"id": str(i), "ground_truth": "yes", "prediction": "yes", "kind": "a"} for i in range(3)]
    for name, kind in (("one", "a"), ("other", "b")):
        changed = [rows[0] | {"kind": kind}, *rows[1:]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, changed)))
    files = ("one.jsonl", "other.jsonl")
    said = "1 of one id that differ in question, right answer, kind, context or choices"
    assert said in attempt(*MEDTUNE, "diff", *files, cwd=tmp_path).stderr
    shown = attempt(*MEDTUNE, "diff", *files, "--common", cwd=tmp_path).stdout
    assert f"1 question left out: 0 only in A, 0 only in B, {said}" in shown


def write_seeds(folder: Path, revision: str) -> None:
    """What three seeds would have left beside that run, each 0.1 points from the next."""
    lock = run("git", "show", f"{revision}:dvc.lock", cwd=folder)
    named = seeds_fingerprint(parse_yaml(lock, Path("dvc.lock"))["stages"])
    runs = [{"accuracy": value} for value in (0.5, 0.502, 0.501)]
    found = collect_seeds(named, range(3), runs, [{"closed": one} for one in runs])
    (folder / SEEDS_FILE).write_text(found.model_dump_json())


def test_a_difference_is_held_against_what_a_seed_does_where_that_is_known(here: Path) -> None:
    assert "seed" not in describe_diff(make_diff("small", "rank-16"))
    write_seeds(here, "rank-16")
    content = json.loads(diff_as_json(make_diff("small", "rank-16")))
    assert [one["kind"] for one in content["seeds"]] == [None, "closed"]
    # t(0.975; 2) s sqrt(2)
    assert content["seeds"][0]["band"] == pytest.approx(4.302653 * 0.001 * 2**0.5)
    difference = content["comparisons"]["all"]["accuracy"]["difference"]
    assert content["seeds"][0]["larger"] == (abs(difference) > 0.0061)
    text = describe_diff(make_diff("rank-8", "rank-16"))
    assert "beside what the seed alone does (3 seeds, metrics/seeds.json):" in text
    assert "exact answers: +0.0 points is no larger than the 0.6 that two seeds may differ by" in text


def test_seeds_of_another_run_say_nothing_and_a_damaged_file_is_an_error(here: Path) -> None:
    write_seeds(here, "rank-8")
    (here / SEEDS_FILE).write_text((here / SEEDS_FILE).read_text()[:-1])
    with pytest.raises(MedtuneError, match=r"metrics/seeds.json: not what `medtune seeds` wrote"):
        make_diff("rank-8", "rank-16")
    write_seeds(here, "rank-8")
    text = (here / SEEDS_FILE).read_text()
    (here / SEEDS_FILE).write_text(text.replace('"fingerprint":"', '"fingerprint":"0')[:-1] + "}")
    with pytest.raises(MedtuneError, match=r"metrics/seeds.json: not what `medtune seeds` wrote"):
        make_diff("rank-8", "rank-16")
    named = json.loads(text)["fingerprint"]
    (here / SEEDS_FILE).write_text(text.replace(named, named[::-1]))
    assert make_diff("rank-8", "rank-16").seeds is None


@pytest.fixture(scope="module")
def with_raw_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that reads a file below data/raw, with a commit before and one after `dvc add`."""
    folder = tmp_path_factory.mktemp("raw")
    files = FILES | {
        "params.yaml": PARAMS + "data: {sources: {mine: {path: data/raw/mine.jsonl}}}\n",
        "dvc.yaml": PIPELINE.replace(
            "deps: [digests/evaluate.json]", "deps: [digests/evaluate.json, data/raw/mine.jsonl]"
        ),
        ".gitignore": "/data/raw/*.jsonl\n",
        "data/raw/mine.jsonl": "{}\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    for tag in ("before", "after"):
        if tag == "after":
            run("dvc", "add", "--quiet", "data/raw/mine.jsonl", cwd=folder)
        run("dvc", "repro", "--quiet", cwd=folder)
        commit(folder, tag)
        run("git", "tag", tag, cwd=folder)
    (folder / "data/raw/mine.jsonl").write_text('{"more": 1}\n')
    run("dvc", "add", "--quiet", "data/raw/mine.jsonl", cwd=folder)
    commit(folder, "Other data, not run")
    run("git", "tag", "not-run", cwd=folder)
    return folder


def test_own_data_is_vouched_for_whether_dvc_has_it_or_not(
    with_raw_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_raw_data)
    for revision in ("before", "after"):
        assert len(read_predictions(revision)) == 160
    for revision in ("not-run", "workspace"):
        with pytest.raises(MedtuneError, match=r"is not of its data/raw/mine\.jsonl"):
            read_predictions(revision)
    monkeypatch.chdir(with_raw_data / "metrics")
    with pytest.raises(MedtuneError, match="run this in the top folder of the repository"):
        read_predictions("after")


def test_code_that_was_committed_to_the_lock_without_a_run_is_no_run(
    with_raw_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_raw_data)
    run("git", "checkout", "--quiet", "-b", "forged", "after", cwd=with_raw_data)
    run("dvc", "checkout", "--quiet", "--force", cwd=with_raw_data)
    (with_raw_data / "stages/evaluate.py").write_text("VALUE = 3\n")
    run("dvc", "commit", "--quiet", "--force", "code", cwd=with_raw_data)
    commit(with_raw_data, "Forged code")
    with pytest.raises(MedtuneError, match=r"not of its code \(digests/evaluate.json\)"):
        read_predictions("forged")
    run("git", "checkout", "--quiet", "-b", "unnamed", "after", cwd=with_raw_data)
    text = (with_raw_data / "dvc.yaml").read_text()
    (with_raw_data / "dvc.yaml").write_text(text.replace("params: [finetune]", "params: [evaluate]"))
    (with_raw_data / "params.yaml").write_text(
        (with_raw_data / "params.yaml").read_text().replace("rank: 8", "rank: 2")
    )
    commit(with_raw_data, "Parameters that the pipeline no longer names")
    with pytest.raises(MedtuneError, match=r"in params.yaml"):
        read_predictions("unnamed")
