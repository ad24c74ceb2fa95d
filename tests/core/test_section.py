"""Every mistake in params.yaml is one line that names the file, the key and what is accepted."""

import shutil
from pathlib import Path

import pytest
import yaml

from medtune.answer.params import AnswerParams
from medtune.commands.sections import SECTION_TYPES
from medtune.core.errors import MedtuneError
from medtune.core.section import SECTIONS, Section
from medtune.core.yaml_file import read_yaml
from medtune.data.params import DataParams
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams
from tests.conftest import ROOT, edit_params


def edited(tmp_path: Path, key: str, value: object) -> Path:
    """A copy of the shipped params.yaml with one dotted key set."""
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    edit_params(path, {key: value})
    return path


def test_every_section_has_a_type_in_the_order_of_the_file() -> None:
    typed = tuple(section.name for section in SECTION_TYPES)
    assert typed[: len(SECTIONS)] == SECTIONS
    # Behind them those of stages that were added, of which a program of another language needs no type.
    assert tuple(read_yaml(ROOT / "params.yaml"))[: len(typed)] == typed


@pytest.mark.parametrize("section", SECTION_TYPES, ids=lambda section: section.name)
def test_the_shipped_file_is_valid(section: type[Section]) -> None:
    section.load(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("finetune.learning_rat", 0.1, "unknown key 'finetune.learning_rat'; did you mean 'learning_rate'?"),
        ("finetune.lora.rank", 8, "unknown key 'finetune.lora.rank'; accepted: r, alpha, dropout"),
        ("finetune.batch_size", "many", "finetune.batch_size is 'many': must be a valid integer"),
        ("finetune.batch_size", True, "finetune.batch_size is True: must be a valid integer"),
        ("finetune.batch_size", 0, "finetune.batch_size is 0: must be greater than or equal to 1"),
        ("finetune.schedule", "sine", "finetune.schedule is 'sine': must be 'cosine', 'linear' or"),
        ("finetune.lora.dropout", 1.0, "finetune.lora.dropout is 1.0: must be less than 1"),
        ("finetune.epochs", float("inf"), "finetune.epochs is inf: must be a finite number"),
        ("finetune.seed", 2**32, "finetune.seed is 4294967296: must be less than 4294967296"),
        ("finetune.lora.target_modules", 3, "finetune.lora.target_modules is 3"),
    ],
)
def test_a_bad_value_names_key_value_and_accepted(
    tmp_path: Path, key: str, value: object, expected: str
) -> None:
    with pytest.raises(MedtuneError) as error:
        FinetuneParams.load(edited(tmp_path, key, value))
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/params.yaml: ")


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        (
            FinetuneParams,
            "finetune.lora.target_modules",
            "q_proj",
            "must be 'all-linear', or must be a valid list",
        ),
        (FinetuneParams, "finetune.early_stopping", 3, "is 3: must be a mapping of keys to values, or null"),
        (AnswerParams, "answer.examples_per_kind", "all", "is 'all': must be a valid integer, or null"),
        (
            FinetuneParams,
            "finetune.launch",
            "a/b",
            "in configs/accelerate, without .yaml",
        ),
        (DataParams, "data.sources.hpo.sha256", "abc", "must be 64 hexadecimal digits, or null"),
        (ComputeParams, "compute.quantization", "int4", "is 'int4': must be 'nf4', or null"),
    ],
)
def test_all_that_is_accepted_is_said(
    tmp_path: Path, section: type[Section], key: str, value: object, expected: str
) -> None:
    with pytest.raises(MedtuneError) as error:
        section.load(edited(tmp_path, key, value))
    assert str(error.value).endswith(expected)


def test_a_nested_mapping_of_kinds_is_named_in_full(tmp_path: Path) -> None:
    path = edited(tmp_path, "data.kinds.definition.trian", 5)
    with pytest.raises(MedtuneError, match=r"'data.kinds.definition.trian'; did you mean 'train'"):
        DataParams.load(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    content = read_yaml(ROOT / "params.yaml")
    del content["finetune"]["lora"]["r"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(MedtuneError, match=r"the key 'finetune.lora.r' is missing"):
        FinetuneParams.load(path)


@pytest.mark.parametrize(
    ("right", "wrong"), [("learning_rate", "learnig_rate"), ("seed", "sed"), ("launch", "lanch")]
)
def test_a_misspelt_key_is_named_with_its_nearest_before_what_is_missing(
    tmp_path: Path, right: str, wrong: str
) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    head, section, rest = text.partition("\nfinetune:\n")
    path.write_text(head + section + rest.replace(f"\n  {right}:", f"\n  {wrong}:", 1))
    with pytest.raises(MedtuneError, match=f"unknown key 'finetune.{wrong}'; did you mean '{right}'"):
        FinetuneParams.load(path)


def test_shares_must_leave_training_data(tmp_path: Path) -> None:
    with pytest.raises(MedtuneError, match="add up to less than 1"):
        DataParams.load(edited(tmp_path, "data.test", 0.95))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("finetun:\n  seed: 1\n", "unknown section 'finetun'; did you mean 'finetune'?"),
        ("data: {}\n", "the section 'finetune' is missing"),
        ("finetune: 3\n", "finetune is 3: must be a mapping of keys to values"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(MedtuneError) as error:
        FinetuneParams.load(path)
    assert expected in str(error.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(MedtuneError, match="run this in the top folder"):
        FinetuneParams.load(tmp_path / "params.yaml")
