"""Every command that the README and docs/ show is run, or its page's source says by whom or why not."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.blocks import Block, blocks, run_block
from tests.conftest import ROOT, edit_params
from tests.project import run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKS = re.compile(r"run|run by: (?P<files>tests/\S+\.py(?:, tests/\S+\.py)*)|not run: \S.*")
COMMANDS = [
    pytest.param(page, block, id=f"{page.name}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.is_commands
]


@pytest.mark.parametrize(("page", "block"), COMMANDS)
def test_a_block_of_commands_is_marked_with_how_it_is_tried(page: Path, block: Block) -> None:
    mark = MARKS.fullmatch(block.mark)
    assert mark, f"{page.name}:{block.line} has no mark above it; tests/blocks.py has the forms"
    for beginning in block.left_out:
        assert any(line.strip().startswith(beginning) for line in block.text.splitlines())
    files = [ROOT / name for name in (mark["files"] or "").split(", ") if name]
    tests = "".join(file.read_text() for file in files)
    # Tests that read the page run the block as it stands; others run the same commands in words of their own.
    if files and block.language != "python" and not ("run_block" in tests and page.name in tests):
        for command in re.findall(r"^(?:.* && )?medtune ([\w-]+)", block.text, re.M):
            assert f'"{command}"' in tests, f"none of {block.mark} runs medtune {command}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.runs for block in blocks(page))], ids=lambda page: page.name
)
def test_the_blocks_of_a_page_run_one_after_the_other(
    page: Path, finished_tiny_project: Path, tmp_path: Path
) -> None:
    project = shutil.copytree(finished_tiny_project, tmp_path / "medtune", symlinks=True)
    for key, value in {"name": "Test", "email": "test@localhost"}.items():
        run("git", "config", f"user.{key}", value, cwd=project)
    # "Change something, commit it, compare": the change.
    edit_params(project / "params.yaml", {"evaluate.seed": 8})
    for name in ("predictions", "others"):
        row = {"question": "Is fever a symptom?", "ground_truth": "yes", "prediction": f"Yes, {name}."}
        (project / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    variables = {"PYTHONPATH": str(project), "MEDTUNE_PROGRESS": str(tmp_path)}
    for block in blocks(page):
        if block.runs:
            run_block(block, project, variables)
