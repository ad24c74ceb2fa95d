"""`medtune attest` and `verify --rebuilt-by`: only a run that was, signed by a trusted key, counts."""

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from medtune.commands.attest import Attested, attest, describe_rebuilders
from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.verify import rebuild, uncommitted
from medtune.verify.chain import Link
from medtune.verify.keys import create_key, load_signer, publish_key, trusted_keys
from medtune.verify.rebuilders import (
    PAYLOAD_TYPE,
    Judgement,
    Rebuilders,
    find_rebuilders,
    judge_all,
    write_statement,
)
from medtune.verify.statement import Descriptor, Facts, Statement, facts_of, statement_of
from tests.project import STAGES, attempt, commit, run

pytestmark = pytest.mark.slow

MEDTUNE = (sys.executable, "-m", "medtune.commands.cli")
ADAPTER = "models/adapter/adapter_model.safetensors"
TIMES = ("2026-01-01T10:00:00Z", "2026-01-01T10:05:00Z")


def own_environment(folder: Path) -> None:
    """A .venv for make that is the one of these tests, as if it had just been filled."""
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("installed-"):
            (folder / ".venv" / part.name).symlink_to(part)
    (folder / ".dvc/plots-page.html").touch()
    for marker in ("installed-runtime", "installed-signing"):
        (folder / ".venv" / marker).touch()


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alice") / "key.pem"


@pytest.fixture(scope="module")
def bob() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


@pytest.fixture(scope="module")
def rebuilt(finished_tiny_project: Path, tmp_path_factory: pytest.TempPathFactory, alice: Path) -> Path:
    """A finished, committed run whose cache is shared and full, which alice has rebuilt by `make rebuild`."""
    top = tmp_path_factory.mktemp("attest")
    project = shutil.copytree(finished_tiny_project, top / "medtune", symlinks=True)
    shutil.move(project / ".dvc/cache", top / "shared")
    run("dvc", "config", "cache.dir", str(top / "shared"), cwd=project)
    run(*MEDTUNE, "attest", "--new-key", "alice", "--key", str(alice), cwd=project)
    commit(project, "A run, and whom to trust")
    own_environment(project)
    variables = {"ARGS": f"--key {alice}", "MAKEFLAGS": "", "MAKELEVEL": ""}
    (project / "printed").write_text(run("make", "rebuild", cwd=project, env=variables))
    return project


@pytest.fixture
def project(rebuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    folder = tmp_path / "medtune"
    shutil.copytree(rebuilt, folder, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def statements(rebuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone without outputs, but with the statement and the data, as the current folder."""
    folder = tmp_path / "clone"
    run("git", "clone", "--quiet", str(rebuilt), str(folder), cwd=tmp_path)
    for name in ("attestations", "data/raw"):
        shutil.copytree(rebuilt / name, folder / name, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def facts(rebuilt: Path) -> Facts:
    return facts_of(rebuilt)


def statement_file() -> Path:
    [file] = Path("attestations").glob("*.json")
    return file


def content(file: Path) -> Statement:
    return Statement.read(Envelope.from_dict(json.loads(file.read_text())).payload)


def trust(signer: CryptoSigner, name: str, folder: Path = Path("attestations/keys")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    public = signer.public_key._crypto_key()
    text = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(text)


def sign(facts: Facts, signer: CryptoSigner, **changes: Any) -> Path:
    """A statement as `medtune attest --rebuild` writes it, of another person."""
    said: dict[str, Any] = {
        "commit": uncommitted.head_commit(),
        "key_id": signer.public_key.keyid,
        "ran": STAGES,
        "times": TIMES,
        "where": {"processor": "Abacus 3"},
    }
    said |= changes
    return write_statement(statement_of(facts, **said), signer)


def judged(facts: Facts, folder: Path = Path("attestations/keys")) -> dict[str, str | None]:
    """Of each file of attestations/ why it does not count."""
    keys, _ = trusted_keys(folder)
    found = judge_all(facts, keys, uncommitted.is_in_history)
    return {Path(one.file).name: one.reason for one in found}


def test_make_rebuild_runs_every_stage_in_a_clean_clone_and_signs_what_came_out(
    project: Path, rebuilt: Path
) -> None:
    printed = Path("printed").read_text()
    assert re.findall(r"Running stage '([\w-]+)'", printed) == STAGES
    assert "is cached" not in printed
    assert f"{statement_file()}: commit {uncommitted.head_commit()[:12]}, rebuilt here" in printed
    said = content(statement_file())
    assert said.rebuilt and said.commit == uncommitted.head_commit()
    products = {one.name: one.digest["sha256"] for one in said.subject}
    assert {ADAPTER, "metrics/answers-tuned.json", "metrics/evaluation.json", "models/record.json"} <= set(
        products
    )
    assert products == {name: file_sha256(Path(name)) for name in products}
    materials = said.facts().materials
    assert {"base model", "data/raw/questions.jsonl", "digests/finetune.json"} <= set(materials)
    assert materials["requirements/runtime.txt"].digest["sha256"] == file_sha256(
        Path("requirements/runtime.txt")
    )
    assert said.where["stages"]["finetune"]["device"] == "cpu"
    # Nothing but the statement is new, and it names neither the machine nor the clone.
    changed = run("git", "status", "--porcelain", "--untracked-files=all", cwd=rebuilt).split("\n")
    assert {line[3:] for line in changed if line} == {str(statement_file()), "printed"}
    assert os.uname().nodename not in said.payload().decode()
    assert "medtune-rebuild-" not in said.payload().decode()


def test_two_keys_that_agree_are_two_and_one_is_not_enough(
    project: Path, facts: Facts, bob: CryptoSigner
) -> None:
    trust(bob, "bob")
    commit(project, "Bob is trusted")
    too_few = find_rebuilders(2, None)
    assert f"\ncounts: {statement_file()}\n" in describe_rebuilders(too_few)
    with pytest.raises(MedtuneError, match="rebuilt by 1 of the 2 that are wanted"):
        too_few.require_enough()
    sign(facts, bob)
    enough = json.loads(run(*MEDTUNE, "verify", "--rebuilt-by", "2", "--json", cwd=project))["rebuilt_by"]
    assert (enough["wanted"], enough["counted"], enough["faults"]) == (2, 2, {})
    assert {one["key"]: one["counts"] for one in enough["statements"]} == {"alice.pem": True, "bob.pem": True}


def test_the_same_key_twice_counts_once(statements: Path, facts: Facts, alice: Path) -> None:
    first = statement_file().name
    second = sign(facts, load_signer(alice)).name
    assert first != second
    earlier, later = sorted((first, second))
    assert judged(facts) == {earlier: None, later: f"of the key of attestations/{earlier}, which counts"}
    shutil.copy("attestations/keys/alice.pem", "attestations/keys/not-alice.pem")
    keys, faults = trusted_keys(Path("attestations/keys"))
    assert len(keys) == 1
    assert faults == {"not-alice.pem": "the key of alice.pem"}


def test_a_key_that_is_not_trusted_does_not_count_and_a_folder_of_ones_own_says_who_is(
    statements: Path, facts: Facts, bob: CryptoSigner, tmp_path: Path
) -> None:
    of_alice, of_bob = statement_file().name, sign(facts, bob).name
    unknown = f"says it is signed by the key {bob.public_key.keyid[:12]}, which is none of the trusted ones"
    assert judged(facts) == {of_alice: None, of_bob: unknown}
    trust(bob, "bob", tmp_path / "mine")
    found = judged(facts, tmp_path / "mine")
    assert found[of_bob] is None
    assert "none of the trusted ones" in str(found[of_alice])


def test_whom_to_trust_is_as_committed(statements: Path, bob: CryptoSigner) -> None:
    trust(bob, "bob")
    with pytest.raises(MedtuneError, match=r"attestations/keys/bob.pem: not as committed"):
        trusted_keys(None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda facts: replace(facts, products=changed(facts.products, ADAPTER)),
            f"gave other bytes: {ADAPTER}",
        ),
        (
            lambda facts: replace(facts, products={k: v for k, v in facts.products.items() if k != ADAPTER}),
            f"gave other bytes: {ADAPTER}",
        ),
        (
            lambda facts: replace(facts, materials=changed(facts.materials, "base model")),
            "about a commit with other materials: base model",
        ),
        (
            lambda facts: replace(facts, materials=changed(facts.materials, "digests/finetune.json")),
            "about a commit with other materials: digests/finetune.json",
        ),
        (
            lambda facts: replace(facts, parameters=facts.parameters | {"diff": {}}),
            "about a commit with other parameters: diff",
        ),
        (
            lambda facts: replace(facts, pipeline=facts.pipeline | {"prepare": {"cmd": "true"}}),
            "about a commit with other pipeline: prepare.cmd, prepare.deps, prepare.outs",
        ),
    ],
    ids=["other adapter", "no adapter", "base", "code", "parameters", "pipeline"],
)
def test_what_differs_is_named_and_does_not_count(
    statements: Path, facts: Facts, bob: CryptoSigner, change: Callable[[Facts], Facts], reason: str
) -> None:
    trust(bob, "bob")
    name = sign(change(facts), bob).name
    assert reason in str(judged(facts)[name])


def changed(known: Mapping[str, Descriptor], name: str) -> dict[str, Descriptor]:
    return {**known, name: known[name].model_copy(update={"digest": {"sha256": "0" * 64}})}


def test_another_commits_statement_does_not_count_and_one_from_before_a_note_does(
    statements: Path, facts: Facts
) -> None:
    name = statement_file().name
    Path("NOTES.md").write_text("Nothing that decides.")
    commit(statements, "A note, and the statement")
    assert judged(facts) == {name: None}
    run("git", "checkout", "--quiet", "--orphan", "elsewhere", cwd=statements)
    commit(statements, "The same files, of another history")
    assert "which is not in this history" in str(judged(facts)[name])


@pytest.mark.parametrize("name", ["HEAD", "--help", "", "0" * 40])
def test_a_statement_about_no_commit_does_not_count(
    statements: Path, facts: Facts, bob: CryptoSigner, name: str
) -> None:
    trust(bob, "bob")
    file = sign(facts, bob, commit=name)
    assert judged(facts)[file.name] == f"about commit {name[:12]}, which is not in this history"


def test_what_was_not_rebuilt_does_not_count(statements: Path, facts: Facts, bob: CryptoSigner) -> None:
    trust(bob, "bob")
    for ran in ([], STAGES[:-1]):
        name = sign(facts, bob, ran=ran).name
        assert judged(facts)[name] == "no rebuild: its outputs may have come from a cache or a remote"


def test_a_statement_of_another_key_that_is_signed_again_does_not_count(
    statements: Path, facts: Facts, alice: Path, bob: CryptoSigner
) -> None:
    trust(bob, "bob")
    copied = write_statement(content(statement_file()), bob)
    of_alice = load_signer(alice).public_key.keyid[:12]
    assert judged(facts)[copied.name] == f"signed by bob.pem, but made by another key, {of_alice}"


def tampered(envelope: dict[str, Any]) -> None:
    payload = base64.b64decode(envelope["payload"]).replace(b'"rebuilt": true', b'"rebuilt": true ')
    assert b"true " in payload
    envelope["payload"] = base64.b64encode(payload).decode()


def signed_twice(envelope: dict[str, Any]) -> None:
    envelope["signatures"].append({"keyid": "0" * 64, "sig": envelope["signatures"][0]["sig"]})


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (tampered, "wrongly signed: alice.pem has not signed these bytes"),
        (lambda one: one["signatures"][0].update(sig="AAAA"), "wrongly signed"),
        (signed_twice, "no in-toto statement with one signature"),
        (lambda one: one.update(signatures=[]), "no in-toto statement with one signature"),
        (lambda one: one.update(payloadType="text/plain"), "no in-toto statement with one signature"),
        (lambda one: one.pop("payload"), "not readable: KeyError"),
        (lambda one: one.update(payload=7), "not readable"),
        (lambda one: one.update(signatures=[{"keyid": ["\x1b[2J"], "sig": "AAAA"}]), "not readable"),
    ],
    ids=["payload", "signature", "two", "none", "type", "no payload", "number", "key id"],
)
def test_a_tampered_statement_is_named_and_does_not_count(
    statements: Path, facts: Facts, tamper: Callable[[dict[str, Any]], object], reason: str
) -> None:
    file = statement_file()
    envelope = json.loads(file.read_text())
    tamper(envelope)
    file.write_text(json.dumps(envelope))
    assert str(judged(facts)[file.name]).startswith(reason)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "[" * 100_000, "\x00", '{"payload": "' + "A" * 2**21 + '"}']
)
def test_no_content_of_a_statement_ends_in_a_traceback(statements: Path, facts: Facts, text: str) -> None:
    statement_file().write_text(text)
    assert re.match("not readable|larger than", str(judged(facts)[statement_file().name]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda one: one["predicate"]["buildDefinition"].update(buildType="urn:x-medtune:run:0"),
            "of the format urn:x-medtune:run:0; read is urn:x-medtune:run:1: make it anew",
        ),
        (
            lambda one: one.update(_type="https://in-toto.io/Statement/v0.1"),
            "no statement about a run: _type",
        ),
        (lambda one: one.update(subject=[]), "no statement about a run: subject"),
        (lambda one: one.update(note="trust me"), "no statement about a run: note"),
        (lambda one: one["subject"].append(one["subject"][0]), "names the product"),
        (lambda one: one["predicate"].pop("runDetails"), "no statement about a run: predicate.runDetails"),
        (lambda one: one.pop("predicate"), "not readable: KeyError"),
    ],
    ids=["old", "type", "no products", "more", "twice", "no details", "no predicate"],
)
def test_another_format_is_named_and_does_not_count_though_rightly_signed(
    statements: Path, facts: Facts, alice: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    file = statement_file()
    said = json.loads(content(file).payload())
    change(said)
    envelope = Envelope(json.dumps(said).encode(), PAYLOAD_TYPE, {})
    envelope.sign(load_signer(alice))
    file.write_text(json.dumps(envelope.to_dict()))
    assert str(judged(facts)[file.name]).startswith(reason)


def test_links_and_pipes_are_not_read(statements: Path, facts: Facts, tmp_path: Path) -> None:
    file = shutil.move(statement_file(), tmp_path / "elsewhere.json")
    Path("attestations/link.json").symlink_to(file)
    os.mkfifo("attestations/pipe.json")
    assert judged(facts) == {"link.json": "a link", "pipe.json": "no plain file"}
    key = shutil.move("attestations/keys/alice.pem", tmp_path / "alice.pem")
    Path("attestations/keys/alice.pem").symlink_to(key)
    assert trusted_keys(Path("attestations/keys")) == ({}, {"alice.pem": "a link"})


def test_what_is_no_public_key_is_named_and_not_trusted(statements: Path, alice: Path) -> None:
    folder = Path("attestations/keys")
    shutil.copy(alice, folder / "oops.pem")
    (folder / "empty.pem").touch()
    other = generate_private_key(SECP256R1()).public_key()
    (folder / "other.pem").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    keys, faults = trusted_keys(folder)
    assert [name for name, _ in keys.values()] == ["alice.pem"]
    assert faults["oops.pem"] == "a PRIVATE key: whoever reads this can sign with it; make a new one"
    assert faults["other.pem"] == "a key of another kind; accepted: ed25519"
    assert faults["empty.pem"].startswith("no public key in PEM")


def test_nothing_that_a_file_says_acts_on_the_terminal() -> None:
    one = Judgement(
        "attestations/\x1b[2Ja.json",
        "key \x1b]0;x\x07\nrebuilt by 9",
        "bob.pem",
        where={"processor": "\x1b[1m"},
    )
    shown = describe_rebuilders(Rebuilders(2, "attestations/keys", [one], {"\x1b.pem": "x"}))
    assert "\x1b" not in shown and "\x07" not in shown
    assert [line for line in shown.splitlines() if line.startswith("rebuilt by")] == [
        "rebuilt by 0, wanted: 2; trusted keys: those in attestations/keys"
    ]


def test_without_a_rebuild_the_statement_says_so_and_will_not_count(
    project: Path, facts: Facts, alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medtune.commands.attest.require_own_code", lambda: None)
    statement_file().unlink()
    links = [Link("best checkpoint -> adapter", "models/adapter: not what is published")]
    monkeypatch.setattr("medtune.commands.attest.verify_chain", lambda: links)
    with pytest.raises(MedtuneError, match=r"nothing is signed: 1 of the links are broken, .* not what is"):
        attest(alice, None)
    assert not list(Path("attestations").glob("*.json"))
    monkeypatch.setattr("medtune.commands.attest.verify_chain", lambda: [Link("all", None)])
    attested = attest(alice, None)
    assert "as it lies here, not rebuilt: it will not count" in attested.describe()
    said = content(attested.file)
    assert not said.rebuilt
    assert said.facts().differences(facts) == {}
    assert judged(facts) == {
        attested.file.name: "no rebuild: its outputs may have come from a cache or a remote"
    }


@pytest.mark.parametrize("rebuild_first", [False, True])
def test_a_workspace_that_is_not_the_commit_is_refused(
    statements: Path, alice: Path, monkeypatch: pytest.MonkeyPatch, rebuild_first: bool
) -> None:
    monkeypatch.setattr("medtune.commands.attest.require_own_code", lambda: None)
    output = StringIO() if rebuild_first else None
    Path("README.md").write_text("Edited")
    with pytest.raises(MedtuneError, match=r"not as committed: README.md; a statement is about a commit"):
        attest(alice, output)
    run("git", "update-index", "--assume-unchanged", "README.md", cwd=statements)
    with pytest.raises(MedtuneError, match=r"git was told to notice no edit of README.md"):
        attest(alice, output)
    run("git", "update-index", "--no-assume-unchanged", "README.md", cwd=statements)
    run("git", "checkout", "--quiet", "README.md", cwd=statements)
    Path("torch.py").touch()
    with pytest.raises(MedtuneError, match=r"not as committed: torch.py"):
        attest(alice, output)
    assert len(list(Path("attestations").glob("*.json"))) == 1


def test_the_clock_and_the_machine_and_other_statements_are_no_edits(statements: Path) -> None:
    Path("metrics/timing.json").write_text("{}")
    Path("metrics/environment.json").write_text("{}")
    uncommitted.require_committed()


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        ("params.yaml", "  seed: 7", "  seed: 8", "params.yaml of the commit, by what dvc.lock has for code"),
        ("requirements/runtime.txt", "torch==", "torch==0+", "requirements/runtime.txt: its md5 is"),
        ("dvc.yaml", "    cmd: python", "    frozen: true\n    cmd: python", "did not run to its end"),
    ],
)
def test_a_commit_that_is_not_of_one_piece_or_runs_nothing_is_not_rebuilt(
    statements: Path, path: str, old: str, new: str, said: str
) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))
    commit(statements, "Without a run")
    with pytest.raises(MedtuneError, match=re.escape(said)):
        rebuild.rebuild(uncommitted.head_commit(), StringIO())


def test_data_that_is_not_here_is_named_before_anything_runs(statements: Path) -> None:
    Path("data/raw/questions.jsonl").unlink()
    with pytest.raises(MedtuneError, match=r"data/raw/questions.jsonl: not there; run: dvc pull"):
        rebuild.rebuild(uncommitted.head_commit(), StringIO())


def test_a_rebuild_that_gave_other_bytes_is_signed_and_fails(statements: Path) -> None:
    said = content(statement_file())
    attested = Attested(statement_file(), said, [ADAPTER], is_trusted=True)
    with pytest.raises(
        MedtuneError, match=rf"other bytes than the commit has: {ADAPTER}; the statement says so"
    ):
        attested.require_same_bytes()


def test_a_key_is_for_its_owner_alone_and_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "settings" / "key.pem"
    public, identity = create_key(path, "carol")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public == Path("attestations/keys/carol.pem")
    assert load_signer(path).public_key.keyid == identity
    before = path.read_bytes()
    with pytest.raises(MedtuneError, match="there is a key already"):
        create_key(path, "carol")
    assert path.read_bytes() == before
    public.unlink()
    assert publish_key(path, "carol") == (public, identity)
    create_key(tmp_path / "other.pem", "dan")
    with pytest.raises(MedtuneError, match=r"carol.pem: there is another key of that name"):
        publish_key(tmp_path / "other.pem", "carol")
    path.chmod(0o640)
    with pytest.raises(MedtuneError, match=f"others can read; run: chmod 600 {path}"):
        load_signer(path)


@pytest.mark.parametrize("name", ["", "../up", "-x", "a/b", ".hidden", "a b"])
def test_a_name_that_is_none_makes_no_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedtuneError, match="is no name for a key"):
        create_key(tmp_path / "key.pem", name)
    assert list(tmp_path.iterdir()) == []


def test_a_key_with_a_passphrase_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDTUNE_KEY_PASSPHRASE", "a long one")
    _, identity = create_key(tmp_path / "key.pem", "carol")
    assert b"ENCRYPTED" in (tmp_path / "key.pem").read_bytes()
    assert load_signer(tmp_path / "key.pem").public_key.keyid == identity
    monkeypatch.setenv("MEDTUNE_KEY_PASSPHRASE", "another")
    with pytest.raises(MedtuneError, match=r"key.pem: no private key in PEM that can be read"):
        load_signer(tmp_path / "key.pem")
    monkeypatch.delenv("MEDTUNE_KEY_PASSPHRASE")
    monkeypatch.setattr("sys.stdin", StringIO())
    with pytest.raises(MedtuneError, match="asks for a passphrase; set MEDTUNE_KEY_PASSPHRASE"):
        load_signer(tmp_path / "key.pem")


def test_a_key_of_openssl_signs_too_and_one_of_another_kind_does_not(tmp_path: Path) -> None:
    made = tmp_path / "ed25519.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", made], check=True)
    made.chmod(0o600)
    load_signer(made)
    other = tmp_path / "x25519.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "x25519", "-out", other], check=True)
    other.chmod(0o600)
    with pytest.raises(MedtuneError, match=r"x25519.pem: a key of another kind; accepted: ed25519"):
        load_signer(other)


def test_a_private_key_that_git_would_add_is_neither_made_nor_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("git", "init", "--quiet", cwd=tmp_path)
    inside = tmp_path / "key.pem"
    with pytest.raises(MedtuneError, match=r"key.pem: a private key in a git repository"):
        create_key(inside, "carol")
    assert not inside.exists()
    (tmp_path / ".gitignore").write_text("*.pem\n")
    create_key(inside, "carol")
    load_signer(inside)
    run("git", "add", "--force", "key.pem", cwd=tmp_path)
    with pytest.raises(MedtuneError, match=r"key.pem: a private key in a git repository"):
        load_signer(inside)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify", "--keys", "somewhere"), "error: --keys goes with --rebuilt-by N"),
        (
            ("attest", "--key", "no/where.pem"),
            "error: no/where.pem: no such key; make one: medtune attest --new-key",
        ),
    ],
)
def test_a_mistake_is_one_line(statements: Path, arguments: tuple[str, ...], said: str) -> None:
    result = attempt(*MEDTUNE, *arguments, cwd=statements)
    assert result.returncode == 1
    assert result.stderr.startswith(said) and result.stderr.count("\n") == 1
