"""Blocks and their marks are found as a reader of the page's source would find them."""

from pathlib import Path

import pytest

from tests.blocks import blocks, run_block

PAGE = """\
# A page

```bash
no mark
```

Text.
<!-- run -->
<!-- but for `make test`: takes an hour -->
```bash
echo one
make test
```

<!-- not run: needs
  a GPU -->

1. In a list:

   <!-- run by: tests/test_blocks.py -->
   ```python
   print("listed")
   ```

<!-- run -->
A sentence in between.

```yaml
key: value
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_a_block_has_the_mark_right_above_it_and_no_other(page: Path) -> None:
    found = [(block.language, block.mark, block.line) for block in blocks(page)]
    assert found == [
        ("bash", "", 3),
        ("bash", "run", 10),
        ("python", "run by: tests/test_blocks.py", 21),
        ("yaml", "", 28),
    ]


def test_a_block_runs_without_the_lines_that_its_mark_leaves_out(page: Path, tmp_path: Path) -> None:
    block = blocks(page)[1]
    assert block.runs and block.left_out == ("make test",)
    assert run_block(block, tmp_path) == "one\n"


def test_a_block_that_fails_in_its_middle_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("<!-- run -->\n```bash\nfalse\necho after\n```\n")
    with pytest.raises(AssertionError):
        run_block(blocks(path)[0], tmp_path)
