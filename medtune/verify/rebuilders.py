"""`medtune verify --rebuilt-by N`: who has rebuilt this commit, by the statements in attestations/.

A statement counts if a trusted key has signed it and no other of that key counts, if every stage ran for it,
in a clean clone, and if it agrees with what is here in parameters, pipeline, materials and products. Of any
other it is said why it does not count.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, SSlibKey

from medtune.core.errors import MedtuneError
from medtune.core.outputs import write_json
from medtune.verify.keys import ATTESTATIONS, KEYS, read_small_file, trusted_keys
from medtune.verify.statement import Facts, Statement, facts_of
from medtune.verify.uncommitted import is_in_history, require_committed

PAYLOAD_TYPE = "application/vnd.in-toto+json"
SHOWN = 3
"""Names that a line has of what differs; `--json` has all."""


@dataclass(frozen=True)
class Judgement:
    """A file of attestations/, and why it does not count; None if it does.

    `key` is the file of the key that signed it, and what it says is known only then. `differs` has names by
    "parameters", "pipeline", "materials" and "products".
    """

    file: str
    reason: str | None
    key: str | None = None
    commit: str | None = None
    finished: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    differs: dict[str, list[str]] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it is one of those that are wanted."""
        return self.reason is None


@dataclass(frozen=True)
class Rebuilders:
    """The statements about a commit, each judged; `faults` says of files why they are no trusted keys."""

    wanted: int
    trusted: str
    judgements: list[Judgement]
    faults: dict[str, str]

    @property
    def counted(self) -> int:
        """How many keys stand behind the commit."""
        return sum(one.counts for one in self.judgements)

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        judged = [{"counts": one.counts} | asdict(one) for one in self.judgements]
        return {
            "wanted": self.wanted,
            "counted": self.counted,
            "trusted": self.trusted,
            "statements": judged,
            "faults": self.faults,
        }

    def require_enough(self) -> None:
        """Refuse fewer than are wanted."""
        if self.counted < self.wanted:
            raise MedtuneError(f"rebuilt by {self.counted} of the {self.wanted} that are wanted")


def find_rebuilders(wanted: int, keys: Path | None) -> Rebuilders:
    """Judge every statement about the commit that is here, whose chain holds; `keys` is a folder."""
    if wanted < 1:
        raise MedtuneError(f"--rebuilt-by is {wanted}: must be 1 or more")
    require_committed()
    trusted, faults = trusted_keys(keys)
    judgements = judge_all(facts_of(Path()), trusted, is_in_history)
    return Rebuilders(wanted, str(keys or KEYS), judgements, faults)


def judge_all(
    facts: Facts, keys: Mapping[str, tuple[str, SSlibKey]], in_history: Callable[[str], bool]
) -> list[Judgement]:
    """Judge every file of attestations/ in alphabetic order; of those of one key, the first that is right."""
    if ATTESTATIONS.is_symlink():
        raise MedtuneError(f"{ATTESTATIONS}: a link; accepted: a folder of this repository")
    judged: list[Judgement] = []
    for file in sorted(ATTESTATIONS.glob("*.json")):
        one = _judge(file, facts, keys, in_history)
        known = next((other for other in judged if other.counts and other.key == one.key), None)
        if one.counts and known:
            one = replace(one, reason=f"of the key of {known.file}, which counts")
        judged.append(one)
    return judged


def write_statement(statement: Statement, signer: CryptoSigner) -> Path:
    """Sign a statement; returns its file, whose name no other statement has."""
    envelope = Envelope(statement.payload(), PAYLOAD_TYPE, {})
    signature = envelope.sign(signer)
    name = f"{statement.commit[:12]}-{signature.keyid[:12]}-{signature.signature[:8]}.json"
    write_json(ATTESTATIONS / name, envelope.to_dict())
    return ATTESTATIONS / name


def _judge(
    file: Path, facts: Facts, keys: Mapping[str, tuple[str, SSlibKey]], in_history: Callable[[str], bool]
) -> Judgement:
    try:
        name, statement = _open(file, keys)
    except MedtuneError as error:
        return Judgement(str(file), str(error))
    except Exception as error:
        # Whatever somebody has put there can make a reader raise anything.
        return Judgement(str(file), f"not readable: {' '.join(f'{type(error).__name__}: {error}'.split())}")
    differs = statement.facts().differences(facts)
    finished = statement.predicate.run_details.metadata.finished_on
    reason = _reason(statement, differs, in_history)
    return Judgement(str(file), reason, name, statement.commit, finished, statement.where, differs)


def _open(file: Path, keys: Mapping[str, tuple[str, SSlibKey]]) -> tuple[str, Statement]:
    """The statement in a file, and the name of the trusted key that signed it."""
    envelope = Envelope.from_dict(json.loads(read_small_file(file)))
    if envelope.payload_type != PAYLOAD_TYPE or len(envelope.signatures) != 1:
        raise MedtuneError(f"no in-toto statement with one signature (its type is {envelope.payload_type!r})")
    [(key_id, signature)] = envelope.signatures.items()
    if key_id not in keys:
        raise MedtuneError(f"says it is signed by the key {key_id[:12]}, which is none of the trusted ones")
    name, key = keys[key_id]
    try:
        key.verify_signature(signature, envelope.pae())
    except UnverifiedSignatureError:
        raise MedtuneError(f"wrongly signed: {name} has not signed these bytes") from None
    statement = Statement.read(envelope.payload)
    if statement.key_id != key_id:
        raise MedtuneError(f"signed by {name}, but made by another key, {statement.key_id[:12]}")
    statement.facts()
    return name, statement


def _reason(
    statement: Statement, differs: Mapping[str, Sequence[str]], in_history: Callable[[str], bool]
) -> str | None:
    if not statement.rebuilt:
        return "no rebuild: its outputs may have come from a cache or a remote"
    if not in_history(statement.commit):
        return f"about commit {statement.commit[:12]}, which is not in this history"
    if asked := [kind for kind in differs if kind != "products"]:
        return f"about a commit with other {', '.join(asked)}: {_named(differs, asked)}"
    if differs:
        return f"its rebuild gave other bytes: {_named(differs, ['products'])}"
    return None


def _named(differs: Mapping[str, Sequence[str]], kinds: Sequence[str]) -> str:
    names = [name for kind in kinds for name in differs[kind]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
