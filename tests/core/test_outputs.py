import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medtune.core.outputs import TIMING_FILE, record_timing, replacing, write_json


def test_json_is_readable_and_complete_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json(path, {"é": 0.1})
    assert path.read_text(encoding="utf-8") == '{\n  "é": 0.1\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": 0.1}
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_each_stage_keeps_the_timing_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record_timing("prepare", 2.04)
    record_timing("finetune", 10.0, tokens=5000, device_memory=5 * 2**30)
    record_timing("prepare", 3.0)
    timing = json.loads(TIMING_FILE.read_text())
    peak = timing["prepare"].pop("peak_memory_gib")
    assert 0 < peak < 64
    assert timing == {
        "finetune": {"seconds": 10.0, "peak_memory_gib": 5.0, "tokens_per_second": 500.0},
        "prepare": {"seconds": 3.0},
    }


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symlink", "hardlink"])
def test_a_file_that_dvc_has_linked_to_its_cache_is_replaced_and_the_cache_stays(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    cached, path = tmp_path / "cache" / "object", tmp_path / "metrics.json"
    cached.parent.mkdir()
    cached.write_text("as cached")
    cached.chmod(0o444)
    link(path, cached)
    write_json(path, {"new": True})
    assert cached.read_text() == "as cached"
    assert not path.is_symlink()
    assert json.loads(path.read_text()) == {"new": True}


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"accuracy": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
