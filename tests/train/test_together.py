"""Checkpoints by time of processes that train together: all make them at the same step, or all wait."""

import shutil
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.project import attempt
from tests.tools import digests

NEVER = 1e9


def train(folder: Path, *, save_after: float, kill_at: int = -1) -> None:
    """Train in two processes."""
    (folder / "progress").mkdir(exist_ok=True)
    launched = attempt(
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "tests.train.together", str(folder), str(save_after), str(kill_at)),
        cwd=ROOT,
    )
    assert (launched.returncode == 0) == (kill_at < 0), launched.stderr


def test_a_killed_run_goes_on_from_a_checkpoint_by_time_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    train(tmp_path, save_after=NEVER)
    expected = digests(tmp_path / "models")
    assert "checkpoints/checkpoint-10/rng_state_1.pth" in expected
    for made in ("models", "progress"):
        shutil.rmtree(tmp_path / made)
    train(tmp_path, save_after=0, kill_at=2)
    assert (tmp_path / "progress/between/checkpoint-2/since_log_1.json").is_file()
    train(tmp_path, save_after=0, kill_at=8)
    assert (tmp_path / "progress/between/checkpoint-8").is_dir()
    train(tmp_path, save_after=0)
    assert digests(tmp_path / "models") == expected
