"""What has passed its check goes to the hub, to the byte, and nothing else does."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtune.export.checked import describe_check
from medtune.export.places import folder_sha256, trained_sha256
from tests.conftest import ROOT
from tests.hub import Hub, Repository, model_hub

TOKEN = "hf_ofTheWriter"
READER = "hf_ofTheReader"
FORM = {
    "runtime": "transformers",
    "questions": 100,
    "prompts": {"identical": 1.0},
    "answers": {"identical": 0.99},
    "log_likelihood": {"mean": 0.0, "largest": 0.0001},
    "accuracy": {"before": 0.46, "after": 0.46},
    "tolerated": {"prompts": 1.0, "answers": 0.98, "log_likelihood": 0.05, "accuracy": 0.0},
}
FRONT = """---
library_name: transformers
license: apache-2.0
base_model: org/base
---

# A model

"""
CARD = FRONT + describe_check({"merged": FORM})


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with model_hub() as served:
        served.tokens, served.writers, served.made = {TOKEN, READER}, {TOKEN}, tmp_path / "hub"
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an export that has passed."""
    export = tmp_path / "here/models/export/merged"
    export.mkdir(parents=True)
    (tmp_path / "here/.dvc").mkdir()
    adapter = tmp_path / "here/models/adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "README.md").write_text("Its own card.")
    (export / "README.md").write_text(CARD)
    (export / "config.json").write_text("{}\n")
    (export / "model.safetensors").write_bytes(bytes(range(256)))
    note(tmp_path / "here")
    return tmp_path / "here"


def note(folder: Path, **changes: object) -> None:
    """Say of the export that it has passed its check as it lies there."""
    digest = folder_sha256(folder / "models/export/merged")
    checked = {"sha256": digest, "passed": True, "forms": {"merged": FORM}}
    (folder / "metrics").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained = trained_sha256()
    content = {"trained": trained, "foreign": False, "formats": {"merged": {**checked, **changes}}}
    (folder / "metrics/export.json").write_text(json.dumps(content))


def medtune(folder: Path, hub: Hub, *options: str, token: str | None = TOKEN) -> tuple[int, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    # The storage that large files have there by now has a protocol of its own; what it falls back to is HTTP.
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "medtune.commands.cli", "export", *options]
    env = inherited | settings | ({"HF_TOKEN": token} if token else {})
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert not token or token not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def publish(folder: Path, hub: Hub, *options: str, token: str | None = TOKEN) -> tuple[int, str]:
    return medtune(folder, hub, "merged", "--publish", "org/mine", *options, token=token)


def test_without_yes_it_is_shown_and_nothing_is_asked_of_the_hub(folder: Path, hub: Hub) -> None:
    status, said = publish(folder, hub, token=None)
    assert status == 0, said
    for path in (folder / "models/export/merged").iterdir():
        assert path.name in said
    assert "base_model: org/base" in said
    assert "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880" in said
    assert "nothing was pushed" in said
    assert not hub.repositories and not hub.requests


def test_what_is_pushed_is_what_has_passed_and_nobody_else_reads_it(folder: Path, hub: Hub) -> None:
    status, said = publish(folder, hub, "--yes")
    assert (status, said.startswith(f"pushed: {hub.url}/org/mine/commit/")) == (0, True)
    made = hub.repositories["models/org/mine"]
    assert made.private
    assert folder_sha256(made.folder) == folder_sha256(folder / "models/export/merged")
    # Again: the same files, in the same place.
    assert publish(folder, hub, "--yes")[0] == 0


def test_a_public_repository_is_pushed_to_only_when_that_is_said(
    folder: Path, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public/README.md").write_text("old")
    hub.repositories["models/org/mine"] = Repository(tmp_path / "public", "f" * 40)
    status, said = publish(folder, hub, "--yes")
    assert (status, "org/mine is public on the hub" in said) == (1, True)
    assert (tmp_path / "public/README.md").read_text() == "old"
    assert publish(folder, hub, "--yes", "--public")[0] == 0
    assert (tmp_path / "public/README.md").read_text() == CARD


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("other bytes", "not the files that metrics/export.json has a check of"),
        ("one more file", "not the files that metrics/export.json has a check of"),
        ("not passed", "merged has not passed its check"),
        ("never asked", "has no check of merged"),
        ("no export", "models/export/merged: not there"),
        ("no base", "names no base model"),
        ("no licence", "its licence is 'unknown'"),
        (
            "another adapter",
            "models/adapter: another adapter or card than models/export/merged was",
        ),
        ("another card of the adapter", "models/adapter: another adapter or card"),
        ("no adapter", "models/adapter: not there"),
        ("invented figures", "README.md: does not tell of the check in metrics/export.json"),
    ],
)
def test_what_has_not_passed_as_it_lies_there_is_refused(
    folder: Path, hub: Hub, change: str, reason: str
) -> None:
    export = folder / "models/export/merged"
    if change == "other bytes":
        (export / "model.safetensors").write_bytes(bytes(256))
    elif change == "one more file":
        (export / "notes.txt").write_text("hello")
    elif change == "not passed":
        note(folder, passed=False)
    elif change == "never asked":
        (folder / "metrics/export.json").unlink()
    elif change == "another adapter":
        (folder / "models/adapter/adapter_model.safetensors").write_bytes(b"others")
    elif change == "another card of the adapter":
        (folder / "models/adapter/README.md").write_text("Worse than before.")
    elif change == "no adapter":
        shutil.rmtree(folder / "models/adapter")
    elif change == "invented figures":
        note(folder, forms={"merged": FORM | {"questions": 590}})
    elif change == "no export":
        export.rename(folder / "models/export/refused-merged")
    else:
        lines = {"no base": ("base_model: org/base\n", ""), "no licence": ("apache-2.0", "unknown")}
        (export / "README.md").write_text(CARD.replace(*lines[change]))
        note(folder)
    status, said = publish(folder, hub, "--yes")
    assert (status, reason in said, said.count("\n")) == (1, True, 1)
    assert not hub.repositories


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"questions": 1}, "merged was asked fewer than 50 questions (1)"),
        ({"prompts": {"identical": 0.9}}, "merged had the same prompts in 90.0% alone"),
        ({"answers": {"identical": 0.2}}, "merged gave the same answers in 20.0% alone"),
    ],
)
def test_what_a_weak_check_let_pass_is_pushed_only_when_that_is_said_and_its_card_tells(
    folder: Path, hub: Hub, change: dict[str, object], reason: str
) -> None:
    forms = {"merged": FORM | change}
    (folder / "models/export/merged/README.md").write_text(FRONT + describe_check(forms))
    note(folder, forms=forms)
    status, said = publish(folder, hub, "--yes")
    assert (status, reason in said, said.count("\n")) == (1, True, 1)
    assert not hub.repositories
    assert publish(folder, hub, "--yes", "--anyway")[0] == 0
    pushed = hub.repositories["models/org/mine"].folder / "README.md"
    assert describe_check(forms) in pushed.read_text()


@pytest.mark.parametrize(
    ("token", "reason"),
    [(None, "no token of the hub"), (READER, "does not let this token write there")],
)
def test_without_the_right_to_write_it_is_one_line(
    folder: Path, hub: Hub, token: str | None, reason: str
) -> None:
    status, said = publish(folder, hub, "--yes", token=token)
    assert (status, reason in said, said.count("\n")) == (1, True, 1)
    assert not hub.repositories


def test_a_card_that_the_hub_refuses_is_one_line(folder: Path, hub: Hub) -> None:
    export = folder / "models/export/merged"
    (export / "README.md").write_text(CARD.replace("apache-2.0", "my-own"))
    note(folder)
    status, said = publish(folder, hub, "--yes")
    assert (status, '"license" must be one of' in said, said.count("\n")) == (1, True, 1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--publish", "org/mine"), "--publish takes one format"),
        (("merged", "--publish", "mine"), "accepted: ORG/NAME"),
        (("merged", "--publish", "org/../x"), "accepted: ORG/NAME"),
        (("merged", "--yes"), "--yes, --public and --anyway go with --publish"),
        (("mergd",), "did you mean 'merged'?"),
        (("merged", "--questions", "0"), "--questions is 0"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    folder: Path, hub: Hub, options: tuple[str, ...], reason: str
) -> None:
    status, said = medtune(folder, hub, *options)
    assert (status, reason in said, said.count("\n")) == (1, True, 1)
