"""Rows added, removed, edited, reordered; and a file of lines with only one of these changes made."""

from medtune.explain.rows import Row, changes, in_order_of, lines_of, with_changes

BEFORE = b'{"id":"a"}\n{"id":"b"}\n{"id":"c"}'
AFTER = b'{"id":"c"}\n{"id":"new"}\n{"id":"a","edited":1}\n'


def rows(*names: str, edited: str = "") -> list[Row]:
    return [Row(name, f"{name}{name == edited}", "") for name in names]


def test_each_row_is_told_by_its_id() -> None:
    found = changes(rows("a", "b", "c"), rows("c", "new", "a", edited="a"))
    assert (found.added, found.removed, found.edited, found.reordered) == (["new"], ["b"], ["a"], True)


def test_equal_rows_are_no_change_and_an_order_alone_is_one() -> None:
    assert not changes(rows("a", "b"), rows("a", "b"))
    assert changes(rows("a", "b"), rows("b", "a")).reordered
    assert not changes(rows("a", "b"), rows("a", "x", "b")).reordered


def test_one_change_leaves_the_others_unmade() -> None:
    assert with_changes(BEFORE, AFTER, {"b": (2, None, 0)}) == b'{"id":"a"}\n{"id":"c"}\n'
    assert b'"edited"' in with_changes(BEFORE, AFTER, {"a": (1, 3, 0)}).split(b"\n")[0]


def test_a_new_row_stands_behind_the_one_that_it_follows() -> None:
    made = with_changes(BEFORE, AFTER, {"new": (None, 2, 3)})
    assert made == BEFORE + b'\n{"id":"new"}\n'
    assert with_changes(BEFORE, AFTER, {"new": (None, 2, 0)}).startswith(b'{"id":"new"}\n{"id":"a"}')


def test_an_order_is_of_lines_whatever_their_content() -> None:
    odd = 'one\u2028line\n"a\rb"\n'.encode()
    assert len(lines_of(odd)) == 2
    assert in_order_of(odd, [2, 1]) == b'"a\rb"\n' + "one\u2028line\n".encode()
