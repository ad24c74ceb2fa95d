"""Long loops say how far they are, on stderr alone; short ones say nothing. Time is what the test says."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medtune.core.errors import MedtuneError
from medtune.data.nearness import Nearness
from medtune.data.pace import SHOWN_AFTER, with_pace
from medtune.data.pool import Origin, Pool
from stages import prepare
from tests.conftest import example
from tests.data.raw import params, read, write

ROWS = [{"question": f"What is number {n}?", "answer": f"It is {n}"} for n in range(60)]


class Clock:
    """The time that tqdm sees; each look at it takes `step` seconds."""

    def __init__(self) -> None:
        self.seconds = self.step = 0.0

    def __call__(self) -> float:
        self.seconds += self.step
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("tqdm.std.time", made)
    # It looks at the real clock.
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    return made


def test_a_long_loop_says_how_many_rows_and_how_many_a_second(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in with_pace(iter(range(200)), "reading mine"):
        clock.seconds += 0.25
    shown = capsys.readouterr()
    assert shown.out == ""
    # In a log each line stays, so they are ten seconds apart.
    lines = [line.strip() for line in shown.err.strip().split("\r")]
    assert list(dict.fromkeys(lines)) == [
        "reading mine: 40.0 rows [00:10, 4.00 rows/s]",
        "reading mine: 80.0 rows [00:20, 4.00 rows/s]",
        "reading mine: 120 rows [00:30, 4.00 rows/s]",
        "reading mine: 160 rows [00:40, 4.00 rows/s]",
        "reading mine: 200 rows [00:50, 4.00 rows/s]",
    ]


def test_where_the_end_is_known_it_says_how_far_that_is(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in with_pace(range(100), "writing train"):
        clock.seconds += 0.25
        if n == 50:
            break
    assert "writing train:  40%" in capsys.readouterr().err


def test_of_rows_that_go_many_at_once_each_counts(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in with_pace(range(3), "comparing", at_once=4096):
        clock.seconds += 16
    assert "12288/12288 [00:48<00:00, 256.00 rows/s]" in capsys.readouterr().err


def test_a_short_loop_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for row in with_pace(range(1000), "reading mine"):
        clock.seconds += 0.99 * SHOWN_AFTER / 1000
        rows.append(row)
    assert rows == list(range(1000))
    assert capsys.readouterr().err == ""


def test_an_error_has_a_line_of_its_own(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[int]:
        for _ in range(50):
            clock.seconds += 1
            yield 1
        raise MedtuneError("not readable")

    with pytest.raises(MedtuneError):
        list(with_pace(rows(), "reading mine"))
    assert capsys.readouterr().err.endswith("\n")


def test_reading_a_file_shows_its_pace(clock: Clock, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(raw / "mine.jsonl", ROWS)
    read(path)
    assert capsys.readouterr().err == ""
    clock.step = 1
    assert len(read(path)) == 60
    assert "reading mine: 60.0 rows [" in capsys.readouterr().err


def test_looking_for_near_duplicates_shows_its_pace(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    pool = Pool(1)
    for n in range(60):
        pool.append(example(id=str(n), question=f"What is number {n}?"), Origin(0, f"line {n}"))
    clock.step = 20
    Nearness(pool, np.arange(60), 0.8).earlier()
    shown = capsys.readouterr().err
    assert "indexing for near duplicates: 100%" in shown
    assert "comparing near duplicates: 100%" in shown


def test_a_slow_run_writes_the_same_files(
    clock: Clock, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(raw / "mine.jsonl", ROWS)

    def written() -> dict[str, bytes]:
        chosen = params()
        run = SimpleNamespace(params=lambda _: chosen, confirm=lambda: None)
        prepare.main(run)  # type: ignore[arg-type]
        return {path.name: path.read_bytes() for path in [*prepare.PREPARED.iterdir(), prepare.COUNTS]}

    before = written()
    quick = capsys.readouterr()
    clock.step = 1
    assert written() == before
    slow = capsys.readouterr()
    assert len(before) == 8
    assert slow.out == quick.out
    assert quick.err == ""
    for doing in ("reading mine", "writing train", "writing test"):
        assert f"{doing}:" in slow.err
