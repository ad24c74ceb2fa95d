"""`medtune attest`: a signed statement about the run of a commit, in attestations/.

With `--rebuild` the commit runs again in a clean clone, and the statement is about what came out: only that
counts for `medtune verify --rebuilt-by`. Without it, the statement is about the outputs that lie here, which
the chain shows to be of one piece but which nobody has seen being made: DVC may have fetched them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from medtune.commands.tables import one_line
from medtune.core.errors import MedtuneError
from medtune.verify.chain import require_own_code, verify_chain
from medtune.verify.keys import KEYS, default_key, load_signer, trusted_keys
from medtune.verify.rebuild import now, rebuild
from medtune.verify.rebuilders import Judgement, Rebuilders, write_statement
from medtune.verify.statement import Statement, facts_of, statement_of, this_machine
from medtune.verify.uncommitted import head_commit, require_committed


@dataclass(frozen=True)
class Attested:
    """A statement that was written; `differing` are outputs with other bytes than the commit's."""

    file: Path
    statement: Statement
    differing: list[str]
    is_trusted: bool

    def describe(self) -> str:
        """What `medtune attest` prints."""
        said = "rebuilt here" if self.statement.rebuilt else "as it lies here, not rebuilt: it will not count"
        lines = [f"{self.file}: commit {self.statement.commit[:12]}, {said}"]
        if not self.is_trusted:
            lines.append(f"its key is not in {KEYS}: medtune attest --public-key YOUR-NAME")
        lines.append("for others to see: git add attestations && git commit")
        return "\n".join(lines)

    def require_same_bytes(self) -> None:
        """Refuse a rebuild that gave other bytes than the commit has, which the statement says."""
        if self.differing:
            raise MedtuneError(
                f"the rebuild gave other bytes than the commit has: {', '.join(self.differing)}; the "
                "statement says so, and does not count for this commit"
            )


def attest(key: Path | None, output: TextIO | None) -> Attested:
    """Write and sign a statement about the commit that is checked out.

    With an `output`, the commit is rebuilt first, and what its stages print goes there.
    """
    require_own_code()
    signer = load_signer(key or default_key())
    require_committed()
    commit, machine, times = head_commit(), this_machine(), (now(), now())
    if output is None:
        _require_chain()
        facts, ran, differing, stages = facts_of(Path()), [], [], {}
    else:
        made = rebuild(commit, output)
        facts, ran, times = made.facts, made.ran, made.times
        differing, stages = made.differing, made.environment
    statement = statement_of(
        facts, commit, signer.public_key.keyid, ran=ran, times=times, where=machine | {"stages": stages}
    )
    known = trusted_keys(KEYS)[0] if KEYS.is_dir() else {}
    return Attested(
        write_statement(statement, signer), statement, differing, signer.public_key.keyid in known
    )


def describe_rebuilders(found: Rebuilders) -> str:
    """What `medtune verify --rebuilt-by` prints below the links.

    Statements are files of anybody: nothing in them acts on the terminal.
    """
    lines = []
    for name, reason in found.faults.items():
        lines.append(one_line(f"not trusted: {found.trusted}/{name}: {reason}"))
    for one in found.judgements:
        lines.append(one_line(f"{'counts' if one.counts else 'does not count'}: {one.file}"))
        lines += [f"    {one_line(line)}" for line in _details(one)]
    lines.append(
        f"rebuilt by {found.counted}, wanted: {found.wanted}; trusted keys: those in {found.trusted}"
    )
    return "\n".join(["", *lines])


def _details(one: Judgement) -> list[str]:
    lines = [one.reason] if one.reason else []
    if one.key:
        machine = one.where.get("processor") or one.where.get("machine") or "a machine it does not name"
        lines.append(f"{one.key}, commit {(one.commit or '')[:12]}, {one.finished}, on {machine}")
    return lines


def _require_chain() -> None:
    broken = [link for link in verify_chain() if link.broken]
    if broken:
        raise MedtuneError(
            f"nothing is signed: {len(broken)} of the links are broken, such as "
            f"{broken[0].name}: {broken[0].broken}"
        )
