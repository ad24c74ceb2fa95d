"""What a remote holds may be anybody's: pickles that lie in it are pulled, and never run."""

import pickle
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import edit_params
from tests.project import attempt, commit, repro, run

pytestmark = pytest.mark.slow

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
ASK = (*MEDTUNE, "ask", "What is 3 + 4?")
WEIGHTS = "adapter_model.safetensors"
CHECKPOINT = "models/checkpoints/checkpoint-20"
PICKLED = (
    "adapter_model.bin",
    "pytorch_model.bin",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "training_args.bin",
)


class Payload:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a pickle leaves if it is run."""
    return tmp_path / "executed"


@pytest.fixture
def payload(mark: Path) -> bytes:
    content = pickle.dumps(Payload(mark))
    pickle.loads(content)
    assert mark.exists(), "the payload works"
    mark.unlink()
    return content


@pytest.fixture
def attacker(finished_tiny_project: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "attacker"
    shutil.copytree(finished_tiny_project, folder, symlinks=True)
    run("medtune", "add", cwd=folder)
    return folder


def publish_and_pull(attacker: Path) -> Path:
    """Let a commit vouch for whatever the attacker's folder holds; pull it into a clone."""
    run("dvc", "commit", "--force", cwd=attacker)
    commit(attacker, "Better weights")
    # The default remote is a folder beside the repository, so a clone beside it has the same.
    run("dvc", "push", cwd=attacker)
    clone = attacker.parent / "clone"
    run("git", "clone", "--quiet", str(attacker), str(clone), cwd=attacker)
    run("dvc", "pull", cwd=clone)
    return clone


def test_pickles_beside_the_weights_are_not_run(attacker: Path, payload: bytes, mark: Path) -> None:
    for name in PICKLED:
        (attacker / CHECKPOINT / name).write_bytes(payload)
    clone = publish_and_pull(attacker)
    assert (clone / CHECKPOINT / "adapter_model.bin").read_bytes() == payload
    for name in PICKLED:
        (clone / "models/adapter" / name).write_bytes(payload)
    assert run(*ASK, cwd=clone).strip()
    attempt(*MEDTUNE, "verify", cwd=clone)
    edit_params(clone / "params.yaml", {"answer.max_new_tokens": 4})
    assert repro(clone) == {"code", "answer-base", "answer-tuned", "answer-shots", "evaluate"}
    assert not mark.exists()


@pytest.mark.parametrize("left", ["nothing", "a pickle", "half"])
def test_an_adapter_without_whole_safetensors_is_refused(
    attacker: Path, payload: bytes, mark: Path, left: str
) -> None:
    weights = attacker / "models/adapter" / WEIGHTS
    whole = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(payload if left == "a pickle" else whole[: len(whole) // 2])
    clone = publish_and_pull(attacker)
    (clone / "models/adapter/adapter_model.bin").write_bytes(payload)
    if left == "nothing":
        (clone / "models/adapter" / WEIGHTS).unlink()
    edit_params(clone / "params.yaml", {"answer.max_new_tokens": 4})
    for command in (ASK, (sys.executable, "-m", "stages.answer", "tuned")):
        refused = attempt(*command, cwd=clone)
        assert refused.returncode == 1
        reasons = (f"holds no {WEIGHTS}", f"{WEIGHTS}: not there", f"{WEIGHTS}: not a whole safetensors file")
        assert refused.stderr.startswith("error: models/adapter")
        assert any(reason in refused.stderr for reason in (reasons[:2] if left == "nothing" else reasons[2:]))
        assert "Traceback" not in refused.stderr
    assert not mark.exists()
