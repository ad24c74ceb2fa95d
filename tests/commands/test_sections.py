"""The words in params.yaml and the schema for editors are those of the types."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from medtune.commands import sections
from medtune.commands.sections import explained, main, schema_text
from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import parse_yaml, read_yaml
from tests.conftest import ROOT

SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))


def test_the_shipped_file_has_the_words_of_the_types() -> None:
    assert explained(SHIPPED) == SHIPPED


def test_the_shipped_schema_is_that_of_the_types() -> None:
    assert (ROOT / "params.schema.json").read_text(encoding="utf-8") == schema_text()


def test_every_key_is_explained() -> None:
    lines = SHIPPED.splitlines()
    above = [lines[number - 1].strip() for number, line in enumerate(lines) if line[:1].isalpha()]
    assert all(line.startswith("#") for line in above)


def test_words_are_put_back_and_values_stay() -> None:
    values = [line for line in SHIPPED.splitlines() if not line.lstrip().startswith("#")]
    assert explained("\n".join(values)) == SHIPPED
    old = SHIPPED.replace("# ", "# an old word ")
    assert explained(old) == SHIPPED


@pytest.mark.parametrize(
    ("found", "edited"),
    [
        ("    target_modules: all-linear\n", "    target_modules:\n      - q_proj\n      - v_proj\n"),
        ("    target_modules: all-linear\n", "    target_modules: [q_proj,\n      v_proj]\n"),
        ("  seed: 7\n", "  seed: 8 # mine\n"),
    ],
)
def test_no_value_is_lost(found: str, edited: str) -> None:
    text = SHIPPED.replace(found, edited, 1)
    assert text != SHIPPED
    assert parse_yaml(explained(text), Path("a")) == parse_yaml(text, Path("b"))


def test_a_file_whose_values_would_change_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("params.yaml")
    path.write_text(SHIPPED)
    monkeypatch.setattr(sections, "explained", lambda text: text.replace("alpha: 32", "alpha: 16"))
    with pytest.raises(MedtuneError, match=r"params\.yaml: its values would change"):
        main()
    assert path.read_text() == SHIPPED


def test_editors_find_the_schema() -> None:
    assert SHIPPED.splitlines()[0] == "# yaml-language-server: $schema=params.schema.json"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "name", ["params.yaml", *(f"profiles/{p.name}" for p in (ROOT / "profiles").glob("*"))]
)
def test_the_schema_accepts_what_is_shipped(name: str) -> None:
    content = read_yaml(ROOT / "params.yaml")
    for section, values in read_yaml(ROOT / name).items():
        content[section] |= values
    jsonschema.validate(content, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("finetune", "learnig_rate"), 1e-3),
        (("finetune", "lora", "rank"), 8),
        (("finetune", "lora", "r"), "sixteen"),
        (("finetune", "batch_size"), 0),
        (("compute", "attention"), "flash"),
        (("evaluate", "partial_f1"), "half"),
        (("finetun",), {}),
    ],
)
def test_the_schema_refuses_what_a_stage_would(path: tuple[str, ...], value: object) -> None:
    content: dict[str, Any] = copy.deepcopy(read_yaml(ROOT / "params.yaml"))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMA)
