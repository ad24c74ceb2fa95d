"""A statement about a run: which bytes (subject) came from what (materials), and where it ran.

It is an in-toto statement whose predicate is SLSA's provenance, version 1, so that other tools can read it:

    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": "models/adapter/adapter_model.safetensors", "digest": {"sha256": "8562..."}}, ...],
     "predicateType": "https://slsa.dev/provenance/v1",
     "predicate": {
       "buildDefinition": {
         "buildType": "urn:x-medtune:run:1",
         "externalParameters": {"parameters": {"finetune": {...}, ...}, "pipeline": {"finetune": {...}, ...}},
         "internalParameters": {"rebuilt": true, "stages": ["code", "prepare", ...]},
         "resolvedDependencies": [{"name": "commit", "digest": {"gitCommit": "3f1c..."}}, ...]},
       "runDetails": {
         "builder": {"id": "urn:x-medtune:key:9b2e..."},
         "metadata": {"startedOn": "2026-01-01T10:00:00Z", "finishedOn": "2026-01-01T10:05:00Z"},
         "byproducts": [{"name": "environment", ...}]}}}

Compared are subject, parameters, pipeline and materials; where and when it ran is told and never compared.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from dvc.repo import Repo
from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.core.section import PARAMS_FILE, Strict
from medtune.run.code import CODE
from medtune.run.lock_file import LOCK_FILE, ROLES, entries, read_lock
from medtune.verify.remade import RECORD, differing, json_file

RUN_TYPE: Final = "urn:x-medtune:run:1"
"""The format of what a statement says of a run. Another one is not read: it is made anew."""
BUILDER = "urn:x-medtune:key:"
COMMIT = "commit"
CODE_STAGE = "code"
"""The stage whose outputs, the digests of the code, are materials of all others."""


class _Part(Strict):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class Descriptor(_Part):
    """in-toto's ResourceDescriptor: something by its name and digests, hex by algorithm."""

    name: str
    digest: dict[str, str] = Field(min_length=1)
    uri: str | None = None
    annotations: dict[str, Any] | None = None


class ExternalParameters(_Part):
    """What was asked for: parameters by section, and by stage `cmd` and the paths of `deps` and `outs`."""

    parameters: dict[str, Any]
    pipeline: dict[str, Any]


class InternalParameters(_Part):
    """Whether every stage ran for this statement in a clean clone, and which stages that were."""

    rebuilt: bool
    stages: list[str]


class BuildDefinition(_Part):
    """What was run, with what."""

    build_type: Literal["urn:x-medtune:run:1"] = RUN_TYPE
    external_parameters: ExternalParameters
    internal_parameters: InternalParameters
    resolved_dependencies: list[Descriptor]


class Builder(_Part):
    """Who ran it: the key that signs."""

    id: str


class Metadata(_Part):
    """When, in UTC as ISO 8601 has it."""

    started_on: str
    finished_on: str


class RunDetails(_Part):
    """Who ran it, when and where. Only the key is compared, with the one that has signed."""

    builder: Builder
    metadata: Metadata
    byproducts: list[Descriptor]


class Predicate(_Part):
    """SLSA's provenance."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(_Part):
    """An in-toto statement about a run."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(
        default="https://in-toto.io/Statement/v1", alias="_type"
    )
    subject: list[Descriptor] = Field(min_length=1)
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
    predicate: Predicate

    @classmethod
    def read(cls, payload: bytes) -> "Statement":
        """Parse what `payload` wrote; a format that is not today's is a MedtuneError."""
        content = json.loads(payload)
        found = content["predicate"]["buildDefinition"]["buildType"]
        if found != RUN_TYPE:
            raise MedtuneError(f"of the format {found}; read is {RUN_TYPE}: make it anew")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise MedtuneError(f"no statement about a run: {place}: {first['msg']}") from None

    def payload(self) -> bytes:
        """The bytes that are signed: JSON."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()

    @property
    def commit(self) -> str:
        """The full hash of the commit that ran."""
        found = [one for one in self._build.resolved_dependencies if one.name == COMMIT]
        return found[0].digest.get("gitCommit", "") if len(found) == 1 else ""

    @property
    def key_id(self) -> str:
        """The key that is to have signed it."""
        return self.predicate.run_details.builder.id.removeprefix(BUILDER)

    @property
    def rebuilt(self) -> bool:
        """Whether every stage ran for it."""
        inside = self._build.internal_parameters
        return inside.rebuilt and set(inside.stages) >= set(self._build.external_parameters.pipeline)

    @property
    def where(self) -> dict[str, Any]:
        """What it says of the machine; nothing that was checked."""
        notes = [part.annotations for part in self.predicate.run_details.byproducts if part.annotations]
        return notes[0] if notes else {}

    @property
    def _build(self) -> BuildDefinition:
        return self.predicate.build_definition

    def facts(self) -> "Facts":
        """What it says of the run, for comparison."""
        asked = self._build.external_parameters
        materials = [one for one in self._build.resolved_dependencies if one.name != COMMIT]
        return Facts(
            asked.parameters,
            asked.pipeline,
            _by_name(materials, "material"),
            _by_name(self.subject, "product"),
        )


@dataclass(frozen=True)
class Facts:
    """What is compared of a run: parameters, pipeline, and digests of materials and products by name."""

    parameters: dict[str, Any]
    pipeline: dict[str, Any]
    materials: dict[str, Descriptor]
    products: dict[str, Descriptor]

    def differences(self, other: "Facts") -> dict[str, list[str]]:
        """Names that differ, by "parameters", "pipeline", "materials" and "products"; {} if none does."""
        found = {
            "parameters": list(differing(self.parameters, other.parameters)),
            "pipeline": list(differing(self.pipeline, other.pipeline)),
            "materials": _other_descriptors(self.materials, other.materials),
            "products": _other_descriptors(self.products, other.products),
        }
        return {kind: names for kind, names in found.items() if names}


def facts_of(folder: Path) -> Facts:
    """What lies in a repository whose chain holds: by the stages of its dvc.lock, hashed from its files."""
    lock = read_lock(folder / LOCK_FILE)
    made = {entry.path for entry in entries(lock) if entry.role == "outs"}
    digests = {entry.path for entry in entries(lock) if entry.role == "outs" and entry.stage == CODE_STAGE}
    read = {entry.path for entry in entries(lock) if entry.role == "deps"} - made
    # What the code means stands in the digests; its bytes have comments.
    inputs = {path for path in read if Path(path).parts[0] not in CODE} | digests
    sections = {
        name: value
        for stage in lock.values()
        for name, value in stage["params"].get(PARAMS_FILE.name, {}).items()
    }
    return Facts(
        parameters=json.loads(json.dumps(dict(sorted(sections.items())), default=str)),
        pipeline={name: _described(stage) for name, stage in lock.items()},
        materials=_by_name([*_files(folder, inputs), _base(folder), *_sources(sections)], "material"),
        products=_by_name(_files(folder, made - digests), "product"),
    )


def statement_of(
    facts: Facts,
    commit: str,
    key_id: str,
    *,
    ran: Sequence[str],
    times: tuple[str, str],
    where: Mapping[str, Any],
) -> Statement:
    """The statement of a key about a commit; `ran` are the stages that ran for it, none if none did."""
    build = BuildDefinition(
        external_parameters=ExternalParameters(parameters=facts.parameters, pipeline=facts.pipeline),
        internal_parameters=InternalParameters(rebuilt=bool(ran), stages=list(ran)),
        resolved_dependencies=[
            Descriptor(name=COMMIT, digest={"gitCommit": commit}),
            *facts.materials.values(),
        ],
    )
    details = RunDetails(
        builder=Builder(id=BUILDER + key_id),
        metadata=Metadata(started_on=times[0], finished_on=times[1]),
        byproducts=[_environment(where)],
    )
    return Statement(
        subject=list(facts.products.values()),
        predicate=Predicate(build_definition=build, run_details=details),
    )


def this_machine() -> dict[str, str]:
    """What kind of machine this is, without its name."""
    return {
        "processor": _processor(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
    }


def _environment(where: Mapping[str, Any]) -> Descriptor:
    text = json.dumps(where, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Descriptor(name="environment", digest={"sha256": digest}, annotations=json.loads(text))


def _processor() -> str:
    """Its name as the system has it, such as AMD EPYC 9V74; empty where it says none."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _by_name(descriptors: Iterable[Descriptor], kind: str) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    for one in descriptors:
        if one.name in found:
            raise MedtuneError(f"names the {kind} {one.name} twice")
        found[one.name] = one
    return found


def _other_descriptors(here: Mapping[str, Descriptor], there: Mapping[str, Descriptor]) -> list[str]:
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def _described(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage as what was asked for: its command, and the paths it reads and writes."""
    return {"cmd": stage["cmd"]} | {role: sorted(item["path"] for item in stage[role]) for role in ROLES}


def _files(folder: Path, paths: Iterable[str]) -> Iterator[Descriptor]:
    """Files by their paths in the repository; of a folder, every one that DVC does not ignore."""
    with Repo(str(folder)) as repo:
        for path in sorted(paths):
            for file in _inside(folder / path, repo.dvcignore.is_ignored_file):
                name = file.relative_to(folder).as_posix()
                yield Descriptor(name=name, digest={"sha256": file_sha256(file)})


def _inside(place: Path, is_ignored: Callable[[str], bool]) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise MedtuneError(f"{place}: not there; run `dvc pull` to fetch it or `dvc repro` to make it")
    return sorted(file for file in place.rglob("*") if file.is_file() and not is_ignored(str(file)))


def _base(folder: Path) -> Descriptor:
    base = json_file(folder / RECORD)["base_model"]
    revision = {"gitCommit": base["revision"]} if base["revision"] else {}
    return Descriptor(name="base model", uri=base["source"], digest={"sha256": base["sha256"]} | revision)


def _sources(sections: Mapping[str, Any]) -> Iterator[Descriptor]:
    """Sources of questions that are pinned; local files are named by their paths besides."""
    for name, source in sections["data"]["sources"].items():
        pins = {"sha256": source.get("sha256"), "gitCommit": source.get("revision")}
        if digest := {algorithm: pin for algorithm, pin in pins.items() if pin}:
            yield Descriptor(name=f"data.sources.{name}", uri=source.get("path"), digest=digest)
