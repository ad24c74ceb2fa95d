"""The workflows, the image and the hooks run commands of the Makefile, and give no more than these need."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.project import attempt, run

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.M))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LINTERS = ("zizmor", "check-jsonschema", "hadolint")
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 takes the key `on` for true."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8").replace("\non:", "\n'on':"))
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def lint_commands() -> list[str]:
    """What `make lint` runs beside ruff and mypy."""
    lines = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0].splitlines()
    return [line.strip() for line in lines if line.strip().startswith(LINTERS)]


def test_what_is_shipped_is_clean_for_each_linter() -> None:
    commands = lint_commands()
    assert {command.split()[0] for command in commands} == set(LINTERS)
    for command in commands:
        checked = attempt("bash", "-c", command, cwd=ROOT)
        assert checked.returncode == 0, f"{command}\n{checked.stdout}{checked.stderr}"


@pytest.mark.parametrize(
    ("found", "wrong", "linter"),
    [
        ("permissions: {}", "permissions: write-all", "zizmor"),
        ("  pull_request:\n", "  pull_request_target:\n", "zizmor"),
        ("persist-credentials: false", "persist-credentials: true", "zizmor"),
        ('BASE="$BASE"', "BASE=${{ github.event.pull_request.title }}", "zizmor"),
        ("timeout-minutes: 60", "time-out-minutes: 60", "check-jsonschema"),
    ],
)
def test_the_linters_find_what_they_are_there_for(
    tmp_path: Path, found: str, wrong: str, linter: str
) -> None:
    text = (ROOT / ".github/workflows/pull-request.yml").read_text(encoding="utf-8")
    assert found in text
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".github/workflows/pull-request.yml").write_text(text.replace(found, wrong, 1))
    (command,) = (line for line in lint_commands() if line.startswith(linter))
    assert attempt("bash", "-c", command, cwd=tmp_path).returncode != 0


@each_workflow
def test_actions_are_pinned_by_commit_and_jobs_end(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])
    for job in load(path)["jobs"].values():
        assert job["timeout-minutes"] <= 150
    assert load(path)["concurrency"]["cancel-in-progress"] is True


@each_workflow
def test_no_job_that_runs_code_of_a_pull_request_may_write_or_has_a_secret(path: Path) -> None:
    content = load(path)
    assert set(content["on"]) <= {"push", "pull_request"}
    assert content["permissions"] == {}
    assert "secrets" not in path.read_text(encoding="utf-8")
    for job in content["jobs"].values():
        uses = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
        runs_code = "actions/checkout" in uses
        assert job["permissions"] == ({"contents": "read"} if runs_code else {"pull-requests": "write"})
        if not runs_code:
            assert "head.repo.full_name == github.repository" in job["if"]


@each_workflow
def test_what_runs_on_code_are_commands_of_the_makefile(path: Path) -> None:
    for job in load(path)["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        if "contents" not in job["permissions"]:
            continue
        ours = [command for command in commands if not command.startswith("cat report/comment.md")]
        assert ours
        for command in ours:
            make = re.fullmatch(r"make ([\w-]+)( \w+=\S+)*", command)
            assert command == "bash .ci/run" or (make and make[1] in TARGETS), command


def test_the_tests_run_on_every_supported_python() -> None:
    supported = re.search(r"^SUPPORTED := (.*)$", MAKEFILE, re.M)
    matrix = load(ROOT / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert supported and matrix["python-version"] == supported[1].split()


GH = """\
#!/usr/bin/env bash
# Stands in for GitHub's own program: says which comment there is, and notes what it is asked to write.
if [ "$2" = --paginate ]; then cat existing; else echo "$*" > asked; fi
"""


@pytest.mark.parametrize(
    ("existing", "asked"),
    [
        ("", "api --method POST repos/o/r/issues/7/comments --field body=@report/comment.md --silent"),
        (
            "55\n66\n",
            "api --method PATCH repos/o/r/issues/comments/55 --field body=@report/comment.md --silent",
        ),
    ],
)
def test_the_comment_is_written_once_and_then_anew(tmp_path: Path, existing: str, asked: str) -> None:
    (step,) = (step for step in steps(ROOT / ".github/workflows/pull-request.yml") if "GH_TOKEN" in str(step))
    (tmp_path / "report").mkdir()
    (tmp_path / "report/comment.md").write_text("<!-- medtune -->\nText\n")
    (tmp_path / "existing").write_text(existing)
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    filled = {
        "${{ github.repository }}": "o/r",
        "${{ github.event.pull_request.number }}": "7",
        "${{ github.token }}": "none",
    }
    variables = dict(step["env"])
    for name in variables:
        for expression, value in filled.items():
            variables[name] = variables[name].replace(expression, value)
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=variables | path, check=True)
    assert (tmp_path / "asked").read_text().strip() == asked


def copied() -> list[str]:
    """What the image has before it installs."""
    lines = re.findall(r"^COPY --chown=1000:1000 (.*)$", DOCKERFILE.partition("RUN make install")[0], re.M)
    return [name for line in lines for name in line.split()[:-1]]


def test_the_image_has_what_make_install_reads(tmp_path: Path) -> None:
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    # A make that runs these tests would hand its own down.
    environment = {"MAKEFLAGS": "", "MAKELEVEL": ""}
    planned = run("make", "--dry-run", "install", cwd=tmp_path, env=environment)
    assert "-m venv --clear .venv" in planned and "--editable ." in planned
    (tmp_path / "pyproject.toml").unlink()
    assert attempt("make", "--dry-run", "install", cwd=tmp_path, env=environment).returncode != 0


def lets_in(path: str) -> bool:
    """Whether .dockerignore lets a path into the image: the last pattern that fits decides."""
    inside = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        if line.startswith("#") or not line:
            continue
        wild = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{wild}(?:/.*)?", path):
            inside = line.startswith("!")
    return inside


def test_the_image_has_the_pipeline_and_nothing_that_is_secret_or_large() -> None:
    for path in (
        *(".git/config", ".env", ".dvc/config.local", ".dvc/cache/files/md5/ab/cd", ".dvc/tmp/x"),
        *("data/raw/patients.csv", "data/prepared/train.jsonl", "models/adapter/adapter_model.safetensors"),
        *(
            "models/checkpoints/checkpoint-1/optimizer.pt",
            "metrics/answers-tuned.json",
            "metrics/report.html",
        ),
        *("metrics/evaluation_results.json", ".venv/bin/python", "medtune/core/__pycache__/errors.pyc"),
    ):
        assert not lets_in(path), path
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    left_out = {name.partition("/")[0] for name in tracked if not lets_in(name)}
    assert left_out <= {
        *(".ci", ".devcontainer", ".dockerignore", ".github", ".pre-commit-config.yaml", "Dockerfile"),
    }


def test_the_repository_of_the_image_is_one_commit_of_what_came_in(tmp_path: Path) -> None:
    tracked = [name for name in run("git", "ls-files", cwd=ROOT).splitlines() if lets_in(name)]
    for name in tracked:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (command,) = re.findall(r"^RUN (git init(?:.*\\\n)*.*)$", DOCKERFILE, re.M)
    run("bash", "-c", command, cwd=tmp_path)
    assert run("git", "status", "--porcelain", cwd=tmp_path) == ""
    assert set(run("git", "ls-files", cwd=tmp_path).splitlines()) == set(tracked)
    assert "dvc.yaml" in tracked


def test_the_image_is_left_to_no_root_and_keeps_no_cache() -> None:
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.M) == ["1000"]
    assert "PIP_NO_CACHE_DIR=1" in DOCKERFILE
    assert not re.search(r"(?i)token|secret|password", re.sub(r"^#.*$", "", DOCKERFILE, flags=re.M))


def test_the_devcontainer_is_the_image_and_the_hooks_are_make_lint() -> None:
    text = (ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
    assert f"AS {container['build']['target']}\n" in DOCKERFILE
    assert container["remoteUser"] in DOCKERFILE
    assert container["postCreateCommand"].removeprefix("make ") in TARGETS
    run("pre-commit", "validate-config", cwd=ROOT)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [(hook["id"], hook["entry"]) for repo in hooks for hook in repo["hooks"]] == [
        ("lint", "make lint")
    ]
