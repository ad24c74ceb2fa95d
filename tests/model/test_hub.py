"""Base models from a hub: only safe files, resumed, offline, and what to do when it cannot be.

Nothing of `huggingface_hub`, `transformers` and `datasets` is replaced: they talk to a stand-in on loopback.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.core.examples import write_jsonl
from medtune.model.base import base_folder
from medtune.model.params import ModelParams
from tests.conftest import ROOT, edit_params, example
from tests.hub import Hub, Repository, model_hub
from tests.project import wait_until

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "f" * 40
TOKEN = "hf_ofTheReader"
STRANGER = "hf_ofAnotherAccount"
NOWHERE = "http://127.0.0.1:9"

LOCATE = """
from medtune.core.errors import run
from medtune.model.files import locate
from medtune.model.params import ModelParams

run(lambda: print(locate(ModelParams.load()).sha256))
"""
CHECK = LOCATE.replace("import locate", "import check_files").replace(
    "print(locate(ModelParams.load()).sha256)", "check_files(ModelParams.load())"
)
LOAD = """
import torch
from medtune.model.base import load_model, load_tokenizer
from medtune.model.files import locate
from medtune.run.params import ComputeParams
from medtune.model.params import ModelParams

model = ModelParams.load()
encoded = load_tokenizer(locate(model).path)("What is fever?", return_tensors="pt")
loaded = load_model(model, ComputeParams.load(), torch.float32, torch.device("cpu"))
print(list(loaded(**encoded).logits.shape))
"""
LOAD_WITH_TRANSFORMERS = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("org/model", revision="{COMMIT}")
loaded = AutoModelForCausalLM.from_pretrained("org/model", revision="{COMMIT}")
print(list(loaded(**tokenizer("What is fever?", return_tensors="pt")).logits.shape))
"""
LOAD_DATASET = f"""
import json
from datasets import load_dataset

print(json.dumps(list(load_dataset("org/questions", revision="{COMMIT}", split="train"))))
"""

SHOW = "import sys; from medtune.commands import cli; sys.argv[1:] = ['show']; cli.main()"


@dataclass
class User:
    """Somebody with an empty cache, in a project whose base model is org/model on the hub."""

    hub: Hub
    home: Path
    project: Path

    @property
    def cache(self) -> Path:
        return self.home / "hub" / "models--org--model"

    @property
    def snapshot(self) -> Path:
        return self.cache / "snapshots" / COMMIT

    def start(self, code: str, **env: str) -> subprocess.Popen[str]:
        """Run code in a process of its own: huggingface_hub reads its settings when it is imported."""
        self.hub.requests.clear()
        settings = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=inherited | settings | env,
            cwd=self.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """The exit code and what was printed, in which no token may be."""
        output, errors = process.communicate()
        assert TOKEN not in output + errors
        return process.returncode, output, errors

    def run(self, code: str = LOCATE, **env: str) -> str:
        exit_code, output, errors = self.end(self.start(code, **env))
        assert exit_code == 0, errors
        return output

    def refused(self, code: str = LOCATE, **env: str) -> str:
        """The error that a project whose base model cannot be had ends with."""
        exit_code, _, errors = self.end(self.start(code, **env))
        last = errors.splitlines()[-1]
        assert (exit_code, last[:7]) == (1, "error: "), errors
        assert "Traceback" not in errors
        return last

    def downloads(self) -> list[int]:
        """The byte from which each large file was asked for, without a token: it comes from another host."""
        requests = [request for request in self.hub.requests if request.path.startswith("/stored/")]
        assert not any(request.token for request in requests)
        return [request.first for request in requests]

    def arrived(self) -> int:
        """The size of what is there of a large file that is not whole."""
        return sum(path.stat().st_size for path in (self.cache / "blobs").glob("*.incomplete"))


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    shutil.copy(ROOT / "params.yaml", project)
    edit_params(
        project / "params.yaml",
        {"model.source": "org/model", "model.revision": COMMIT, "model.sha256": None},
    )
    with model_hub() as hub:
        hub.tokens |= {TOKEN, STRANGER}
        yield User(hub, home, project)
    for path in (*home.rglob("*"), *project.rglob("*")):
        if path.is_file() and path.suffix != ".incomplete" and path.stat().st_size < 10**7:
            assert TOKEN.encode() not in path.read_bytes()


@pytest.fixture
def published(
    user: User, tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Repository:
    """A model in two shards, with pickled weights, code, and texts beside it."""
    folder = tmp_path / "published"
    tiny_llama.save_pretrained(folder, max_shard_size="100KB")
    chatml_tokenizer.save_pretrained(folder)
    for name in ("pytorch_model.bin", "modeling_evil.py", "LICENSE.txt", "USE_POLICY.md", "README.md"):
        (folder / name).write_text(f"The {name}")
    (folder / "original").mkdir()
    (folder / "original" / "model.safetensors").write_text("Another format")
    repository = Repository(folder, COMMIT)
    user.hub.repositories["models/org/model"] = repository
    return repository


def shards(repository: Repository) -> list[str]:
    names = sorted(path.name for path in repository.folder.glob("*.safetensors"))
    assert len(names) > 1
    return names


def test_only_safe_files_and_the_licence_are_fetched_and_only_once(user: User, published: Repository) -> None:
    digest = user.run()
    assert user.hub.fetched() == {
        *("config.json", "generation_config.json", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
        *("LICENSE.txt", "USE_POLICY.md"),
        *shards(published),
    }
    assert (user.snapshot / "LICENSE.txt").read_text() == "The LICENSE.txt"
    for settings in ({}, {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}):
        assert user.run(**settings) == digest
        assert user.hub.requests == []
    # A text that is no part of the model is not missed either.
    (user.snapshot / "LICENSE.txt").unlink()
    assert user.run() == digest


def test_a_snapshot_that_lacks_a_shard_is_not_taken_as_whole(user: User, published: Repository) -> None:
    digest = user.run()
    lost = user.snapshot / shards(published)[0]
    lost.resolve().unlink()
    assert "is not whole in the cache" in user.refused(HF_HUB_OFFLINE="1")
    # Without the list of the commit's files there is still the index of the shards.
    (user.cache / "trees" / f"{COMMIT}.json").unlink()
    assert "is not whole in the cache" in user.refused(HF_HUB_OFFLINE="1")
    assert user.run() == digest
    assert user.hub.fetched() == {lost.name}


def test_weights_that_do_not_have_their_hash_are_refused(user: User, published: Repository) -> None:
    (user.cache / "blobs").mkdir(parents=True)
    first, second = shards(published)
    for name, content in ((first, b"of another file"), (second, b"longer than the file" * 10**5)):
        sha256 = published.entry(published.folder / name)["oid"]
        (user.cache / "blobs" / f"{sha256}.incomplete").write_bytes(content)
    assert f"org/model: {first} arrived damaged and was deleted; run this again" in user.refused()
    user.run()
    assert user.downloads() == [0, 0]
    assert user.arrived() == 0


@pytest.mark.parametrize(
    ("model", "env", "expected"),
    [
        (
            {},
            {},
            "org/model is gated: accept its licence at {hub}/org/model, make a token at {hub}/settings/",
        ),
        ({}, {"HF_TOKEN": STRANGER}, "your token has no access to it: accept its licence at {hub}/org/model"),
        (
            {},
            {"HF_TOKEN": "hf_expired"},
            "the hub does not know your token, which may be mistyped or expired",
        ),
        ({}, {"HF_TOKEN": "hf_cut…"}, "HF_TOKEN holds characters that no token has: copy it again"),
        ({"source": "org/none"}, {}, "params.yaml: model.source 'org/none' is not on the hub, or is private"),
        ({"source": "org/none"}, {"HF_TOKEN": TOKEN}, "'org/none' is not on the hub, or is private"),
        ({"source": "org/a--b"}, {}, "params.yaml: model.source 'org/a--b': Cannot have -- or .. in repo_id"),
        ({"revision": OTHER_COMMIT}, {}, f"model.revision {OTHER_COMMIT} is no commit of org/model"),
        ({}, {"HF_ENDPOINT": NOWHERE}, f"{NOWHERE} cannot be reached: check the network (and HF_ENDPOINT,"),
        (
            {},
            {"HF_ENDPOINT": "no-scheme"},
            "no-scheme cannot be reached: check the network (and HF_ENDPOINT,",
        ),
        ({}, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids fetching it: run this once without it"),
    ],
)
def test_a_refusal_says_what_to_do(
    user: User, published: Repository, model: dict[str, str], env: dict[str, str], expected: str
) -> None:
    published.readers = {TOKEN}
    edit_params(user.project / "params.yaml", {f"model.{key}": value for key, value in model.items()})
    message = user.refused(**env)
    assert expected.format(hub=user.hub.url) in message
    assert env.get("HF_TOKEN", TOKEN) not in message
    assert user.hub.fetched() == set()


def test_a_repository_with_pickled_weights_only_is_refused(user: User, published: Repository) -> None:
    for name in (*shards(published), "model.safetensors.index.json"):
        (published.folder / name).unlink()
    expected = f"org/model at {COMMIT}: holds no .safetensors file; weights in other formats are not loaded"
    assert expected in user.refused()
    assert "pytorch_model.bin" not in user.hub.fetched()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, "org/model: the hub answered with status 503; try again later"),
        (200, "{hub} (HF_ENDPOINT) does not answer as a model hub does"),
    ],
)
def test_a_hub_that_fails_or_is_none_is_named(
    user: User, published: Repository, status: int, expected: str
) -> None:
    user.hub.failing = status
    assert expected.format(hub=user.hub.url) in user.refused()


def test_whether_a_model_can_be_had_is_known_before_it_is_fetched(user: User, published: Repository) -> None:
    assert user.run(CHECK) == ""
    # It says whether the model is supported; a weight is not asked for.
    assert [path.name for path in user.snapshot.iterdir()] == ["config.json"]
    asked = [request.path for request in user.hub.requests if request.path.startswith("/org/model/")]
    assert {path.rpartition("/")[2] for path in asked} == {"config.json"}
    user.hub.failing = 503
    assert "the hub answered with status 503" in user.refused(CHECK)
    assert "HF_HUB_OFFLINE forbids fetching it" in user.refused(CHECK, HF_HUB_OFFLINE="1")
    user.hub.failing = None
    user.run()
    assert user.run(CHECK, HF_HUB_OFFLINE="1") == ""


@pytest.mark.parametrize("command", [CHECK, LOCATE])
def test_a_model_that_is_not_supported_is_refused_before_its_weights_are_asked_for(
    user: User, published: Repository, command: str
) -> None:
    config = published.folder / "config.json"
    four_bits = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    config.write_text(json.dumps(json.loads(config.read_text()) | four_bits))
    said = user.refused(command)
    assert "org/model at " in said
    assert "quantised already (bitsandbytes, 4 bits)" in said
    assert not any(name.endswith(".safetensors") for name in user.hub.fetched())


def test_an_example_is_shown_by_the_tokenizer_alone(user: User, published: Repository) -> None:
    write_jsonl(user.project / "data/prepared/train.jsonl", [example()])
    assert "«<|im_end|>»⟧◂" in user.run(SHOW, PYTHONIOENCODING="utf-8")
    assert user.downloads() == []
    assert "tokenizer.json" in user.hub.fetched()
    user.run()
    assert set(shards(published)) < user.hub.fetched()
    user.hub.failing = 503
    assert "«<|im_end|>»⟧◂" in user.run(SHOW, PYTHONIOENCODING="utf-8")


@pytest.mark.slow
def test_a_gated_model_is_fetched_with_a_token_through_every_interruption(user: User, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    for path in base_folder(ModelParams.load(ROOT / "params.yaml")).iterdir():
        (folder / path.name).symlink_to(path)
    user.hub.repositories["models/org/model"] = Repository(folder, COMMIT, {TOKEN})
    user.hub.cuts = [(25_000_000, "closed"), (25_000_000, "stalled"), (25_000_000, "reset")]

    process = user.start(LOCATE, HF_TOKEN=TOKEN)
    wait_until(lambda: user.arrived() > 40_000_000, seconds=60)
    process.kill()
    user.end(process)
    # The client goes on by itself after the first cut; it writes what it has by 10 MiB.
    assert user.downloads() == [0, 20 * 2**20]
    after_the_kill = user.arrived()
    message = user.refused(HF_TOKEN=TOKEN)
    assert "the connection broke off. What has arrived is kept; run this again to go on" in message
    assert user.downloads() == [after_the_kill]
    after_the_reset = user.arrived()
    assert user.run(LOAD, HF_TOKEN=TOKEN) == "[1, 4, 49152]\n"
    assert user.downloads() == [after_the_reset]
    assert after_the_reset > after_the_kill


def test_transformers_reads_the_stand_in_by_itself(user: User, published: Repository) -> None:
    published.readers = {TOKEN}
    assert user.run(LOAD_WITH_TRANSFORMERS, HF_TOKEN=TOKEN).endswith(", 400]\n")
    assert set(shards(published)) < user.hub.fetched()


def test_datasets_reads_the_stand_in(user: User, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    rows = [{"question": f"What is finding {number}?", "answer": "A finding."} for number in range(3)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    user.hub.repositories["datasets/org/questions"] = Repository(folder, COMMIT, {TOKEN})
    assert json.loads(user.run(LOAD_DATASET, HF_TOKEN=TOKEN)) == rows
    assert user.hub.fetched() == {"train.jsonl"}
