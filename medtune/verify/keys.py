"""The keys of statements: ed25519, a private one outside git, public ones in attestations/keys/.

Private keys are files in PEM, PKCS 8, as `medtune attest --new-key` and `openssl genpkey -algorithm ed25519`
write them; signing and its formats are securesystemslib's.
"""

import os
import re
import stat
import subprocess
import sys
from getpass import getpass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from medtune.core.errors import MedtuneError
from medtune.core.git import git
from medtune.core.outputs import write_text

ATTESTATIONS = Path("attestations")
KEYS = ATTESTATIONS / "keys"
PASSPHRASE = "MEDTUNE_KEY_PASSPHRASE"
LARGEST = 2**20
"""Bytes of a key or statement that is read; a statement has some ten thousand."""
FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def default_key() -> Path:
    """Where the private key lies: `$MEDTUNE_KEY`, else in the user's own folder of settings."""
    return Path(os.environ.get("MEDTUNE_KEY") or Path.home() / ".config" / "medtune" / "attest-key.pem")


def create_key(path: Path, name: str) -> tuple[Path, str]:
    """Make a private key, readable by its owner alone; returns the file of its public key, and its id.

    MedtuneError: there is a file, or git would add one there.
    """
    public = _public_file(name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    require_out_of_git(path)
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MedtuneError(
            f"{path}: there is a key already; `medtune attest --public-key {name}` writes its public half, "
            "--key FILE takes another place"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return _write_public(public, CryptoSigner(key))


def publish_key(path: Path, name: str) -> tuple[Path, str]:
    """Write the public half of a private key for others to trust; returns its file and its id."""
    return _write_public(_public_file(name), load_signer(path))


def load_signer(path: Path) -> CryptoSigner:
    """The private key in a file that nobody else can read and git would not add."""
    if not path.is_file():
        raise MedtuneError(f"{path}: no such key; make one: medtune attest --new-key YOUR-NAME")
    require_out_of_git(path)
    # Windows has no such bits.
    if os.name == "posix" and path.stat().st_mode & FOR_OTHERS:
        raise MedtuneError(f"{path}: a private key that others can read; run: chmod 600 {path}")
    content = path.read_bytes()
    try:
        key = _decoded(path, content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MedtuneError(f"{path}: no private key in PEM that can be read: {_one_line(error)}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise MedtuneError(f"{path}: a key of another kind; accepted: ed25519")
    return CryptoSigner(key)


def require_out_of_git(path: Path) -> None:
    """Refuse the place of a private key where git has it, or would add it."""
    real = path.resolve()
    inside = ["git", "-C", str(real.parent), "rev-parse", "--is-inside-work-tree"]
    if subprocess.run(inside, capture_output=True, text=True).stdout.strip() != "true":
        return
    ignored = ["git", "-C", str(real.parent), "check-ignore", "--quiet", "--", str(real)]
    if subprocess.run(ignored, capture_output=True).returncode != 0:
        raise MedtuneError(
            f"{path}: a private key in a git repository, which git would add; keep it outside, such as in "
            f"{default_key()}"
        )


def trusted_keys(folder: Path | None) -> tuple[dict[str, tuple[str, SSlibKey]], dict[str, str]]:
    """Public keys by id, each with its file's name; and why other files there are none, by theirs.

    Without a folder: the keys that the commit has in attestations/keys/.
    """
    place = folder or KEYS
    if not place.is_dir() or (folder is None and (KEYS.is_symlink() or ATTESTATIONS.is_symlink())):
        raise MedtuneError(
            f"{place}: no folder of public keys; accepted: files NAME.pem in attestations/keys/"
        )
    if folder is None and (edited := git("status", "--porcelain", "--", str(KEYS)).splitlines()):
        raise MedtuneError(
            f"{edited[0][3:]}: not as committed, and whom to trust is part of a commit; commit it, or name a "
            "folder of your own: --keys FOLDER"
        )
    keys: dict[str, tuple[str, SSlibKey]] = {}
    faults = {}
    for file in sorted(place.glob("*.pem")):
        try:
            key = _public_key(file)
        except MedtuneError as error:
            faults[file.name] = str(error)
            continue
        if key.keyid in keys:
            faults[file.name] = f"the key of {keys[key.keyid][0]}"
            continue
        keys[key.keyid] = (file.name, key)
    return keys, faults


def read_small_file(file: Path) -> bytes:
    """The bytes of a plain file; a link or something else is refused, and nothing waits for a reader."""
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise MedtuneError("a link" if file.is_symlink() else "no plain file")
    if status.st_size > LARGEST:
        raise MedtuneError(f"larger than {LARGEST} bytes")
    return file.read_bytes()


def _public_key(file: Path) -> SSlibKey:
    content = read_small_file(file)
    if b"PRIVATE KEY" in content:
        raise MedtuneError("a PRIVATE key: whoever reads this can sign with it; make a new one")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MedtuneError(f"no public key in PEM: {_one_line(error)}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise MedtuneError("a key of another kind; accepted: ed25519")
    return SSlibKey.from_crypto(key)


def _public_file(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII):
        raise MedtuneError(f"'{name}' is no name for a key; accepted: letters, digits, - and _")
    return KEYS / f"{name}.pem"


def _write_public(file: Path, signer: CryptoSigner) -> tuple[Path, str]:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key.keyval["public"]))
    text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise MedtuneError(f"{file}: there is another key of that name; take another name")
    write_text(file, text)
    return file, signer.public_key.keyid


def _decoded(path: Path, content: bytes) -> object:
    if b"ENCRYPTED" not in content:
        return load_pem_private_key(content, None)
    known = os.environ.get(PASSPHRASE)
    if known is None and not sys.stdin.isatty():
        raise MedtuneError(f"{path}: asks for a passphrase; set {PASSPHRASE}, or run this in a terminal")
    return load_pem_private_key(content, (known or getpass(f"passphrase of {path}: ")).encode())


def _encryption() -> KeySerializationEncryption:
    known = os.environ.get(PASSPHRASE)
    if known is None and sys.stdin.isatty():
        known = getpass("passphrase for the new key (empty: none): ")
        if known and getpass("once more: ") != known:
            raise MedtuneError("the two passphrases differ; nothing was written")
    return BestAvailableEncryption(known.encode()) if known else NoEncryption()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
