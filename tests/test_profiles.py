"""Shipped profiles are valid, and `medtune use` changes what a profile says and not a byte more."""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from medtune.chat import ChatEncoder
from medtune.errors import MedtuneError
from medtune.params import ModelParams, PromptParams, Section, read_yaml
from medtune.profiles import apply_profile, list_profiles
from tests.conftest import ROOT, example, set_today
from tests.test_cli import medtune

PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
SHIPPED = (ROOT / "params.yaml").read_bytes()
DAYS = [datetime(2024, 7, 26), datetime(2031, 1, 2)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the shipped params.yaml and profiles."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leaves(content: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Every value by its dotted key."""
    found = {}
    for key, value in content.items():
        nested = leaves(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
        found |= nested
    return found


def comments(text: str) -> list[str]:
    """All comments, in order."""
    return [f"#{line.partition('#')[2]}" for line in text.splitlines() if "#" in line]


def set_profile(project: Path, text: str) -> str:
    """Write a profile of one's own and return its name."""
    (project / "profiles" / "mine.yaml").write_text(text)
    return "mine"


@pytest.mark.parametrize("name", PROFILES)
def test_a_shipped_profile_makes_a_valid_params_file_that_says_what_it_says(project: Path, name: str) -> None:
    apply_profile(name)
    for section in Section.__subclasses__():
        section.load(Path("params.yaml"))
    wanted, found = (leaves(read_yaml(Path(file))) for file in (f"profiles/{name}.yaml", "params.yaml"))
    assert {key: found[key] for key in wanted} == wanted
    before = leaves(yaml.safe_load(SHIPPED))
    after = leaves(yaml.safe_load(Path("params.yaml").read_bytes()))
    assert {key for key in after if after[key] != before[key]} <= set(wanted)


@pytest.mark.parametrize("name", PROFILES)
def test_comments_and_the_order_of_keys_stay(project: Path, name: str) -> None:
    apply_profile(name)
    text = Path("params.yaml").read_text()
    assert comments(text) == comments(SHIPPED.decode())
    assert list(leaves(yaml.safe_load(text))) == list(leaves(yaml.safe_load(SHIPPED)))


def test_every_profile_sets_the_same_keys_so_that_none_leaves_a_trace() -> None:
    keys = {name: set(leaves(read_yaml(ROOT / "profiles" / f"{name}.yaml"))) for name in PROFILES}
    assert len(keys) >= 4
    for name in PROFILES:
        assert keys[name] == keys["smollm2-135m"], name


def test_the_default_profile_is_the_shipped_file(project: Path) -> None:
    assert apply_profile("smollm2-135m") == ""
    assert Path("params.yaml").read_bytes() == SHIPPED


def test_going_back_to_the_default_restores_every_byte(project: Path) -> None:
    for name in PROFILES:
        apply_profile(name)
    apply_profile("smollm2-135m")
    assert Path("params.yaml").read_bytes() == SHIPPED


def test_hub_models_are_pinned_by_commit_and_every_profile_is_described() -> None:
    for name, description in list_profiles(ROOT / "profiles").items():
        assert description
        model = read_yaml(ROOT / "profiles" / f"{name}.yaml")["model"]
        assert (model["revision"] is None) == model["source"].startswith("package:")


@pytest.mark.parametrize("name", PROFILES)
def test_prompts_do_not_depend_on_the_day(
    project: Path, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_profile(name)
    is_llama = ModelParams.load().source.startswith("meta-llama/Llama-3.2-")
    tokenizer = request.getfixturevalue("llama3_tokenizer" if is_llama else "chatml_tokenizer")
    encoded = []
    for day in DAYS:
        set_today(monkeypatch, day)
        encoded.append(ChatEncoder(tokenizer, PromptParams.load()).encode(example()))
    assert encoded[0] == encoded[1]


def test_without_a_pinned_day_llama_prompts_do_depend_on_it(
    llama3_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    for day in DAYS:
        set_today(monkeypatch, day)
        message = {"role": "user", "content": "What is fever?"}
        texts.append(str(llama3_tokenizer.apply_chat_template([message], tokenize=False)))
    assert "Today Date: 26 Jul 2024" in texts[0]
    assert "Today Date: 02 Jan 2031" in texts[1]


def test_the_users_own_edits_survive_to_the_byte(project: Path) -> None:
    path = Path("params.yaml")
    text = SHIPPED.decode().replace("    r: 16\n", "    r:   8   # halved\n")
    text = text.replace("    target_modules: all-linear\n", "    target_modules:\n    - q_proj\n    # mine\n")
    text = text.replace("  epochs: 1\n", "  epochs: 2\r\n").replace("\n", "\r\n").replace("\r\r", "\r")
    path.write_bytes(text.encode())
    apply_profile("llama-3.2-1b")
    assert path.read_bytes() != text.encode()
    apply_profile("smollm2-135m")
    assert path.read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("before", "profile", "after"),
    [
        ("  revision: null\n  #", "model: {revision: null}", "  revision: null\n  #"),
        ("  revision:\n  #", f"model:\n  revision: {'a' * 40}", f"  revision: {'a' * 40}\n  #"),
        ("  early_stopping: null\n", "finetune: {early_stopping: null}", "  early_stopping: null\n"),
        (
            "  early_stopping: null\n",
            "finetune:\n  early_stopping: {patience: 3, min_improvement: 0.01}  # mine",
            "  early_stopping: {patience: 3, min_improvement: 0.01}\n",
        ),
        (
            "  early_stopping:  # patient\n    patience: 3\n    min_improvement: 0.01\n",
            "finetune:\n  early_stopping:\n    patience: 5",
            "  early_stopping:  # patient\n    patience: 5\n    min_improvement: 0.01\n",
        ),
        (
            "  early_stopping:\n    patience: 3\n    min_improvement: 0.01\n",
            "finetune:\n  early_stopping:",
            "  early_stopping: null\n",
        ),
        ("    layers:\n    - 20\n    - 21\n    # N", "finetune: {lora: {layers: [1]}}", "    layers: [1]\n    # N"),
        ("    layers: [\n      20]\n    # N", "finetune: {lora: {layers: null}}", "    layers: null\n    # N"),
        ("  date: 26 Jul 2024 # x\n", "prompt: {date: 'a: b'}", "  date: 'a: b' # x\n"),
        ("  date: |\n    a # b\n\n  #", "prompt: {date: c}", "  date: c\n\n  #"),
    ],
)
def test_a_value_is_replaced_where_it_stands(project: Path, before: str, profile: str, after: str) -> None:
    """`before` takes the place of its key's line in the shipped file."""
    path = Path("params.yaml")
    key = before.split(":")[0] + ":"
    (line,) = [line for line in SHIPPED.decode().splitlines(keepends=True) if line.startswith(key)]
    following = before[-3:] if "#" in before[-3:] else ""
    start, rest = SHIPPED.decode().split(line)
    head = before.removesuffix(following) if following else before
    indent = rest[: len(rest) - len(rest.lstrip(" "))]
    path.write_text(start + head + (indent if following and not head.endswith("    ") else "") + rest.lstrip(" "))
    raise NotImplementedError


def test_a_key_that_was_left_out_is_put_back(project: Path) -> None:
    path = Path("params.yaml")
    text = SHIPPED.decode().replace("  revision: null\n", "")
    path.write_text(text)
    apply_profile("llama-3.2-1b")
    assert ModelParams.load().revision == "9213176726f574b556790deb65791e0c5aa438b6"
    assert comments(path.read_text()) == comments(text)
