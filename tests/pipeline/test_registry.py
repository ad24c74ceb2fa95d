"""docs/registry.md, run as it stands: versions and stages of the adapter, fetched and used elsewhere."""

import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from medtune.core.hashing import file_sha256
from medtune.run.lock_file import read_lock
from tests.blocks import Block, blocks, run_block
from tests.conftest import ROOT
from tests.hub import faults_of_card
from tests.project import attempt, commit, run

pytestmark = pytest.mark.slow

PAGE = [block for block in blocks(ROOT / "docs/registry.md") if block.is_commands]
REGISTER, NEXT, FETCH, CHECK, ASK, IMPORT = PAGE
ASKED_OF_MEDTUNE = {"verify", "check-remote", "diff", "ask"}
MADE = ("adapter", "adapter-prod", "adapter-1.0", "by-tag")
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Registry:
    """A repository with two versions, its git remote and its DVC remote, and the folder of a consumer."""

    project: Path
    origin: Path
    storage: Path
    consumer: Path

    def run(self, block: Block, folder: Path) -> str:
        return run_block(block, folder, self.environment(folder))

    def environment(self, folder: Path) -> Mapping[str, str]:
        code = self.project if folder == self.project else ROOT
        identity = {"NAME": "Test", "EMAIL": "test@localhost"}
        known = {
            f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in identity.items()
        }
        return {
            **known,
            "REPOSITORY": str(self.origin),
            "PYTHONPATH": str(code),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.consumer.parent / "site"),
        }


@pytest.fixture(scope="module")
def registry(finished_tiny_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The page's blocks up to what a consumer fetches, each as it stands."""
    top = tmp_path_factory.mktemp("registry")
    found = Registry(top / "medtune", top / "origin.git", top / "storage", top / "consumer")
    found.consumer.mkdir()
    project = shutil.copytree(finished_tiny_project, found.project, symlinks=True)
    run("dvc", "remote", "modify", "storage", "url", str(found.storage), cwd=project)
    commit(project, "A remote")
    run("git", "init", "--quiet", "--bare", str(found.origin), cwd=top)
    run("git", "remote", "add", "origin", str(found.origin), cwd=project)
    found.run(REGISTER, project)
    (project / "NOTES.md").write_text("A later commit.\n")
    commit(project, "A note")
    run("git", "push", "--quiet", "origin", "HEAD", cwd=project)
    printed = found.run(NEXT, project)
    assert re.search(r"adapter\s+│ v1\.1\.0\s+│ v1\.0\.0", printed)
    found.run(FETCH, found.consumer)
    return found


def test_nothing_is_registered_before_it_was_verified_and_is_in_the_remote() -> None:
    assert (
        set(re.findall(r"^medtune ([\w-]+)", "".join(block.text for block in PAGE), re.M)) == ASKED_OF_MEDTUNE
    )
    lines = REGISTER.text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("gto register"))
    before = "\n".join(lines[:first])
    assert all(command in before for command in ("git status", "medtune verify", "dvc push", "check-remote"))


def test_the_artifact_is_named_in_dvc_yaml_and_its_tags_are_in_the_git_remote(registry: Registry) -> None:
    tags = run("git", "tag", cwd=registry.origin).split()
    assert tags == ["adapter#prod#1", "adapter@v1.0.0", "adapter@v1.1.0"]
    artifact = json.loads(
        run(
            sys.executable,
            "-c",
            "import json, dvc.api; print(json.dumps(dvc.api.artifacts_show('adapter', version='v1.0.0')))",
            cwd=registry.project,
        )
    )
    assert artifact["path"] == "models/adapter"
    assert artifact["rev"] == run("git", "rev-parse", "adapter@v1.0.0^{}", cwd=registry.project).strip()


def test_every_way_of_fetching_brings_the_files_of_the_commit(registry: Registry) -> None:
    outs = {path.name for path in (registry.project / "models/adapter").iterdir()}
    for name in MADE:
        for file in outs:
            here = registry.project / "models/adapter" / file
            assert (registry.consumer / name / file).read_bytes() == here.read_bytes()
    assert (registry.consumer / "report.html").is_file()
    record = json.loads((registry.consumer / "record.json").read_text())
    assert record["adapter"] == file_sha256(registry.consumer / "adapter-1.0" / WEIGHTS)


def test_what_was_fetched_is_compared_with_git_and_damage_is_found(
    registry: Registry, tmp_path: Path
) -> None:
    folder = shutil.copytree(registry.consumer, tmp_path / "consumer")
    printed = registry.run(CHECK, folder)
    assert printed.count(": OK") == 6
    for name in (WEIGHTS, "README.md"):
        (folder / "dvc.lock").unlink()
        path = folder / "adapter-1.0" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?")
        result = attempt(
            "bash", "-euo", "pipefail", "-c", CHECK.text, cwd=folder, env=registry.environment(folder)
        )
        assert result.returncode != 0
        assert f"{name}: FAILED" in result.stdout
        path.write_bytes(whole)


def test_dvc_delivers_damaged_objects_as_the_page_says_and_medtune_refuses_them(
    registry: Registry, tmp_path: Path
) -> None:
    lock = read_lock(registry.project / "dvc.lock")["finetune"]["outs"]
    md5 = next(item["md5"] for item in lock if item["path"].endswith(WEIGHTS))
    stored = registry.storage / "files/md5" / md5[:2] / md5[2:]
    whole = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        env = registry.environment(tmp_path)
        run("dvc", "artifacts", "get", str(registry.origin), "adapter", cwd=tmp_path, env=env)
    finally:
        stored.write_bytes(whole)
    command = (
        sys.executable,
        "-m",
        "medtune.commands.cli",
        "ask",
        "Why?",
        "--adapter",
        str(tmp_path / "adapter"),
    )
    result = attempt(*command, cwd=registry.project)
    assert result.returncode == 1
    assert "its tensors are not those that were trained" in result.stderr


def test_what_was_fetched_answers_as_in_the_repository_it_is_from(
    finished_tiny_project: Path, registry: Registry, tmp_path: Path
) -> None:
    folder = shutil.copytree(registry.consumer, tmp_path / "consumer")
    said = registry.run(ASK, folder).strip()
    ask = (sys.executable, "-m", "medtune.commands.cli", "ask", "What is arachnodactyly?")
    assert said == run(*ask, cwd=registry.project).strip()
    # The card's own code, as PEFT's users take it.
    card = (folder / "adapter-1.0/README.md").read_text()
    code = re.search(r"```python\n(.+?)```", card, re.S)
    assert code is not None
    base = finished_tiny_project.parent / "base"
    filled = (
        code[1]
        .replace('"BASE"', repr(str(base)))
        .replace('"FOLDER"', '"adapter-1.0"')
        .replace('"QUESTION"', '"What is arachnodactyly?"')
    )
    assert run(sys.executable, "-c", filled, cwd=folder).strip() == said


def test_a_project_of_ones_own_imports_a_version_and_moves_to_the_next(
    registry: Registry, tmp_path: Path
) -> None:
    env = registry.environment(tmp_path)
    run("git", "init", "--quiet", cwd=tmp_path)
    run("dvc", "init", "--quiet", cwd=tmp_path, env=env)
    registry.run(IMPORT, tmp_path)
    weights = registry.project / "models/adapter" / WEIGHTS
    assert (tmp_path / "adapter" / WEIGHTS).read_bytes() == weights.read_bytes()
    assert "rev: adapter@v1.1.0" in (tmp_path / "adapter.dvc").read_text()


def test_the_cards_of_a_run_are_in_the_hubs_format_and_have_its_figures(registry: Registry) -> None:
    text = (registry.consumer / "adapter/README.md").read_text()
    assert faults_of_card(text) == []
    assert faults_of_card((registry.project / "data/prepared/README.md").read_text(), "dataset") == []
    data: object = ModelCard(text).data
    whole = next(one for one in getattr(data, "eval_results") if one.dataset_config is None)  # noqa: B009
    figures = json.loads((registry.project / "metrics/details.json").read_text())["all"]["tuned"]
    assert whole.metric_value == round(figures["accuracy"], 4)
    assert file_sha256(registry.project / "models/adapter" / WEIGHTS) in text
    assert str(registry.project.parent) not in text
