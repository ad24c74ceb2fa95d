"""Sides that do next to nothing."""

from benchmarks.side import report, run_asked, turns


def doubled(more: str) -> None:
    """Twice what is asked for, and more."""
    for asked in turns():
        print("what a library has to say")
        report({"result": 2 * int(asked) + int(more)})


def failing(_: str) -> None:
    """Ends in its second turn."""
    for number, _asked in enumerate(turns()):
        report({"result": 1 // (1 - number)})


if __name__ == "__main__":
    run_asked({"doubled": doubled, "failing": failing})
