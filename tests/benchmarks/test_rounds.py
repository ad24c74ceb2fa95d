from functools import partial

from benchmarks.rounds import Spread, in_turns, ratios


def test_the_median_stands_between_the_quartiles() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.25, 1.75)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_one_slow_turn_moves_no_ratio_by_much() -> None:
    # The fourth turn of ours took five times as long, as when another process had the cores.
    found = ratios([800, 810, 790, 160, 805], [100, 100, 100, 100, 100])
    assert found.median == 8.0
    assert found.low > 7.5


def test_rounds_are_compared_one_by_one() -> None:
    # A machine that slows down over the rounds slows both sides.
    assert ratios([8.0, 4.0, 2.0], [2.0, 1.0, 0.5]) == Spread(4.0, 4.0, 4.0)


def test_sides_take_turns_in_an_order_that_alternates() -> None:
    order: list[str] = []

    def turn(name: str) -> int:
        order.append(name)
        return len(order)

    found = in_turns({name: partial(turn, name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_a_spread_is_shown_with_its_quartiles() -> None:
    assert Spread(9.4, 8.901, 9.8).shown() == "9.40 (8.90 to 9.80)"
