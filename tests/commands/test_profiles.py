"""Shipped profiles are valid, and `medtune use` changes what a profile says and not a byte more."""

import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from medtune.commands.profiles import apply_profile, list_profiles
from medtune.commands.sections import SECTION_TYPES
from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import read_yaml
from medtune.model.chat import ChatEncoder
from medtune.model.params import ModelParams, PromptParams
from tests.commands.test_cli import medtune
from tests.conftest import ROOT, example, set_today

PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
MODELS = [name for name in PROFILES if "model" in read_yaml(ROOT / "profiles" / f"{name}.yaml")]
QUESTIONS = [name for name in PROFILES if name not in MODELS]
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
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= leaves(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
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
    for section in SECTION_TYPES:
        section.load(Path("params.yaml"))
    wanted, found = (leaves(read_yaml(Path(file))) for file in (f"profiles/{name}.yaml", "params.yaml"))
    assert {key: found[key] for key in wanted} == wanted
    before = leaves(yaml.safe_load(SHIPPED))
    after = leaves(yaml.safe_load(Path("params.yaml").read_bytes()))
    assert {key for key in after if after[key] != before.get(key)} <= set(wanted)
    assert {key for key in before if key not in after} <= {key for key in before if is_by_name(key)}


def is_by_name(key: str) -> bool:
    """Whether it is below one of the mappings whose entries a profile replaces together."""
    return key.startswith(("data.sources.", "data.kinds."))


@pytest.mark.parametrize("name", PROFILES)
def test_comments_and_the_order_of_keys_stay(project: Path, name: str) -> None:
    apply_profile(name)
    text = Path("params.yaml").read_text()
    # A source brings its own comments along.
    assert [line for line in comments(text) if line in comments(SHIPPED.decode())] == comments(
        SHIPPED.decode()
    )
    kept = [
        [
            key
            for key in leaves(yaml.safe_load(content))
            if not f"{key}.".startswith(("data.sources.", "data.kinds."))
        ]
        for content in (text, SHIPPED)
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("names", "default"), [(MODELS, "smollm2-135m"), (QUESTIONS, "hpo")])
def test_every_profile_of_a_sort_sets_the_same_keys_so_that_none_leaves_a_trace(
    names: list[str], default: str
) -> None:
    keys = {
        name: {
            ".".join(key.split(".")[:2]) if f"{key}.".startswith(("data.sources.", "data.kinds.")) else key
            for key in leaves(read_yaml(ROOT / "profiles" / f"{name}.yaml"))
        }
        for name in names
    }
    assert len(keys) >= 4
    for name in names:
        assert keys[name] == keys[default], name


@pytest.mark.parametrize("default", ["smollm2-135m", "hpo"])
def test_the_default_profiles_are_the_shipped_file(project: Path, default: str) -> None:
    assert apply_profile(default) == ""
    assert Path("params.yaml").read_bytes() == SHIPPED


def test_going_back_to_the_defaults_restores_every_byte(project: Path) -> None:
    for name in PROFILES:
        apply_profile(name)
    apply_profile("smollm2-135m")
    apply_profile("hpo")
    assert Path("params.yaml").read_bytes() == SHIPPED


def test_hub_models_are_pinned_by_commit_and_every_profile_is_described() -> None:
    for name, description in list_profiles(ROOT / "profiles").items():
        assert description
        if name in MODELS:
            model = read_yaml(ROOT / "profiles" / f"{name}.yaml")["model"]
            assert (model["revision"] is None) == model["source"].startswith("package:")
        elif name != "hpo":
            # Their commits could not be looked up: whoever uses one is told to.
            assert "medtune pin" in description


def test_sources_and_kinds_of_a_profile_replace_those_that_are_there(project: Path) -> None:
    apply_profile("medqa")
    data = read_yaml(Path("params.yaml"))["data"]
    assert list(data["sources"]) == ["medqa"]
    assert data["kinds"] is None
    own = (
        "data:\n  sources:\n    mine:\n      path: org/name\n      split: train\n  kinds: {fact: {test: 3}}\n"
    )
    apply_profile(set_profile(project, own))
    data = read_yaml(Path("params.yaml"))["data"]
    assert data["sources"] == {"mine": {"path": "org/name", "split": "train"}}
    assert data["kinds"] == {"fact": {"test": 3}}
    assert data["near_duplicates"] == 0.8


def test_use_has_dvc_depend_on_the_files_of_the_new_sources_alone(project: Path) -> None:
    pipeline = (ROOT / "dvc.yaml").read_text()
    Path("dvc.yaml").write_text(pipeline)
    (project / "data" / "raw").mkdir(parents=True)
    Path("data/raw/mine.jsonl").write_text("{}")
    name = set_profile(project, "data:\n  sources:\n    mine: {path: data/raw/mine.jsonl}\n  kinds: null\n")
    assert "dvc.yaml: code and prepare depend on other files now" in medtune("use", name, cwd=project).stdout
    assert "data/raw/mine.jsonl" in read_yaml(Path("dvc.yaml"))["stages"]["prepare"]["deps"]
    shown = medtune("use", "medqa", cwd=project).stdout
    assert shown.endswith("\nparams.yaml is profile medqa; run: medtune pin medqa && dvc repro\n")
    assert "data/raw/mine.jsonl" not in read_yaml(Path("dvc.yaml"))["stages"]["prepare"]["deps"]


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
    text = SHIPPED.decode().replace("    r: 16\n", "    r: 8   # halved\n")
    text = text.replace("    target_modules: all-linear\n", "    target_modules: [q_proj, 'v_proj']\n")
    text = text.replace("  weight_decay: 0.0\n", "  # mine\n  weight_decay: 1e-2\n")
    path.write_text(text)
    apply_profile("llama-3.2-1b")
    assert path.read_text() != text
    apply_profile("smollm2-135m")
    assert path.read_text() == text


def test_a_key_that_was_left_out_is_put_back(project: Path) -> None:
    path = Path("params.yaml")
    text = SHIPPED.decode().replace("  revision: null\n", "")
    path.write_text(text)
    apply_profile("llama-3.2-1b")
    assert ModelParams.load().revision == "9213176726f574b556790deb65791e0c5aa438b6"
    assert comments(path.read_text()) == comments(text)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (
            "finetune:\n  learning_rat: 1e-4\n",
            "unknown key 'finetune.learning_rat'; did you mean 'learning_rate'?",
        ),
        ("finetune: {lora: {rank: 8}}", "unknown key 'finetune.lora.rank'; accepted: r, alpha, dropout"),
        ("modle: {source: x}", "unknown section 'modle'; did you mean 'model'?"),
        (
            "compute: {attention: flash}",
            "compute.attention is 'flash': must be 'auto', 'eager' or 'sdpa'",
        ),
        ("model: {revision: main}", "model.revision is 'main': must be 40 hexadecimal digits"),
        ("finetune: 3", "finetune is 3: must be a mapping of keys to values"),
        ("finetune:\n", "finetune is null: must be a mapping of keys to values"),
        ("model:\n  source: a\n  source: b\n", "line 3: the key 'source' stands twice"),
        ("model: [\n", "line 2: "),
        ("- model\n", "expected a mapping of sections"),
        ("# nothing\n", "expected a mapping of sections"),
        ("a: \x00", "not readable as YAML"),
    ],
)
def test_a_bad_profile_is_one_clear_error_and_nothing_is_written(
    project: Path, profile: str, expected: str
) -> None:
    with pytest.raises(MedtuneError) as error:
        apply_profile(set_profile(project, profile))
    assert str(error.value).startswith("profiles/mine.yaml")
    assert expected in str(error.value)
    assert Path("params.yaml").read_bytes() == SHIPPED
    assert not list(project.glob(".params*"))


def test_a_bad_params_file_is_named_itself_and_stays(project: Path) -> None:
    path = Path("params.yaml")
    path.write_text("model: 3\n")
    with pytest.raises(MedtuneError, match=r"^params\.yaml: "):
        apply_profile("llama-3.2-1b")
    assert path.read_text() == "model: 3\n"


@pytest.mark.parametrize("killed", ["write_text", "replace"])
def test_a_killed_write_leaves_the_old_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    def kill(path: Path, *_: object, **__: object) -> None:
        with path.open("ab") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, killed, kill)
    with pytest.raises(KeyboardInterrupt):
        apply_profile("llama-3.2-1b")
    assert Path("params.yaml").read_bytes() == SHIPPED


def test_a_link_stays_a_link_and_the_file_keeps_its_mode(project: Path) -> None:
    path = Path("params.yaml")
    target = path.rename("shared.yaml")
    target.chmod(0o640)
    path.symlink_to(target)
    apply_profile("llama-3.2-1b")
    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert "meta-llama/Llama-3.2-1B-Instruct" in target.read_text()


def test_use_shows_the_difference_and_says_what_to_run(project: Path) -> None:
    dry = medtune("use", "llama-3.2-1b", "--dry-run", cwd=project)
    assert dry.returncode == 0, dry.stderr
    assert Path("params.yaml").read_bytes() == SHIPPED
    shown = medtune("use", "llama-3.2-1b", cwd=project)
    for result in (dry, shown):
        assert "\n-  precision: auto\n+  precision: bfloat16\n" in result.stdout
        assert "\n-  license: apache-2.0\n+  license: llama3.2\n" in result.stdout
    assert dry.stdout.endswith("\nnothing was written\n")
    assert shown.stdout.endswith("\nparams.yaml is profile llama-3.2-1b; run: dvc repro\n")
    again = medtune("use", "llama-3.2-1b", cwd=project)
    assert again.stdout == "params.yaml is profile llama-3.2-1b already: nothing changes\n"


@pytest.mark.parametrize("arguments", [(), ("--list",)])
def test_without_a_name_the_profiles_are_listed(project: Path, arguments: tuple[str, ...]) -> None:
    lines = medtune("use", *arguments, cwd=project).stdout.splitlines()
    assert [line.split()[0] for line in lines] == PROFILES
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.2-1B", "error: no profile 'llama-3.2-1B' in profiles; did you mean 'llama-3.2-1b'?"),
        ("../params", "error: no profile '../params' in profiles; "),
        ("", "error: no profile '' in profiles; accepted: hpo, llama-3.2-1b, "),
    ],
)
def test_an_unknown_profile_is_one_line_and_exit_code_1(project: Path, name: str, expected: str) -> None:
    result = medtune("use", name, cwd=project)
    assert result.returncode == 1
    assert result.stderr.startswith(expected)
    assert len(result.stderr.splitlines()) == 1


def test_outside_the_repository_use_says_where_to_run(tmp_path: Path) -> None:
    result = medtune("use", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path}: in no medtune repository ")
    assert result.stderr.count("\n") == 1


def test_use_imports_no_torch() -> None:
    script = (
        "import sys, medtune.commands.profiles; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
