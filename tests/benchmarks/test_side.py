import pytest

from benchmarks.side import running

MODULE = "tests.benchmarks.echo_sides"


def test_a_side_keeps_its_process_over_its_turns() -> None:
    with running(MODULE, ["doubled"], "1") as sides:
        assert [sides["doubled"].turn(str(number))["result"] for number in range(3)] == [1, 3, 5]
        assert sides["doubled"].turn("0")["peak_gib"] > 0


def test_a_side_that_fails_ends_the_bench_by_its_name() -> None:
    with pytest.raises(SystemExit, match="failing ended"), running(MODULE, ["failing"], "1") as sides:
        assert sides["failing"].turn()["result"] == 1
        sides["failing"].turn()
