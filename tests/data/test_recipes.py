"""Every recipe of docs/data.md reads the file that stands above it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from medtune.data.faults import Rejects
from medtune.data.params import DataParams
from medtune.data.pool import Pool
from medtune.data.sources import read_sources
from tests.conftest import ROOT

RECIPE = re.compile(r"### (.+?)\n\n```\w+ (\S+)\n(.*?)```\n\n```yaml\n(.*?)```", re.S)
RECIPES = RECIPE.findall((ROOT / "docs/data.md").read_text())


def read(folder: Path, name: str, rows: str, sources: dict[str, Any]) -> Pool:
    (folder / "data/raw").mkdir(parents=True, exist_ok=True)
    (folder / "data/raw" / name).write_text(rows)
    fields = {"sources": sources, "seed": 1, "validation": 0.1, "test": 0.1}
    pool, rejects = Pool(1), Rejects()
    read_sources(DataParams.model_validate(fields), pool, rejects)
    assert list(rejects) == []
    return pool


@pytest.mark.parametrize(("title", "name", "rows", "source"), RECIPES, ids=[recipe[0] for recipe in RECIPES])
def test_a_recipe_reads_its_file(
    title: str, name: str, rows: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = rows.splitlines(keepends=True)
    # Of conversations a file has one form or the other.
    files = lines if name == "turns.jsonl" else [rows]
    for content in files:
        pool = read(tmp_path, name, content, yaml.safe_load(source))
        assert len(pool) == (1 if name == "turns.jsonl" else 2)
        assert all(pool[number].question and pool[number].answer for number in range(len(pool)))


def test_every_form_has_a_recipe() -> None:
    assert len(RECIPES) == 7
