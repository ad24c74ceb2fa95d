"""`medtune check`: whatever can be known without running, told at once.

The stage `code` runs the same checks first, while every output is still there. They take about a second, and
some more where questions have to be made or counted in tokens: only before a run that needs that.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from medtune.answer.params import AnswerParams
from medtune.answer.shots import drawn_shots
from medtune.commands.sections import SECTION_TYPES
from medtune.core.cache import cache_folder, progress_folder, require_writable
from medtune.core.errors import MedtuneError, nearest
from medtune.core.section import PARAMS_FILE, Section
from medtune.core.yaml_file import read_yaml
from medtune.data import ontology
from medtune.data.params import DataParams
from medtune.data.pool import Selection
from medtune.data.preparation import prepare
from medtune.data.sources import check_sources
from medtune.data.tracking import named_files, require_declared, warnings
from medtune.evaluate.params import EvaluateParams
from medtune.model.files import check_files, is_here
from medtune.model.memory import require_memory
from medtune.model.params import ModelParams, PromptParams
from medtune.model.shape import known_shape
from medtune.run.code import digests_of, require_installed
from medtune.run.launch import Launch
from medtune.run.lock_file import read_lock
from medtune.run.params import ComputeParams
from medtune.run.shadowing import require_no_shadows
from medtune.train.params import FinetuneParams

ADAPTER = Path("models/adapter/adapter_model.safetensors")
PREPARED = Path("data/prepared")
MUCH = 50_000_000
"""Bytes of local files; more are only looked at, not split, to check them."""
S = TypeVar("S", bound=Section)


class Project:
    """A params.yaml with those of its sections that are valid."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._sections: dict[type[Section], Section] = {}
        for kind in SECTION_TYPES:
            try:
                self._sections[kind] = kind.of(content)
            except MedtuneError as error:
                self.problems.append(str(error))

    @cached_property
    def splits(self) -> dict[str, Selection]:
        """The examples of the sources, split, which takes seconds; KeyError as for `get`."""
        return prepare(self.get(DataParams)).splits

    def get(self, kind: type[S]) -> S:
        """A section; KeyError if it is not valid."""
        found = self._sections[kind]
        assert isinstance(found, kind)
        return found


def check_project(content: Mapping[str, Any]) -> list[str]:
    """Every problem with the parameters `content` (of params.yaml) and with what they name; none is fine."""
    return _checked(content).problems


def _checked(content: Mapping[str, Any]) -> Project:
    project = Project(content)
    for check in CHECKS:
        try:
            check(project)
        except MedtuneError as error:
            project.problems.append(str(error))
        except KeyError:
            # The section it looks at has a problem of its own, which is told already.
            continue
    # One mistake, such as an unknown section, may meet several sections.
    project.problems = list(dict.fromkeys(project.problems))
    return project


def describe_check() -> str:
    """Check the params.yaml in the current folder; what `medtune check` prints if all is well."""
    project = _checked(read_yaml(PARAMS_FILE))
    if project.problems:
        raise MedtuneError("\nerror: ".join(project.problems))
    verdict = "parameters, launch files, source, base model, packages, device and memory: nothing is wrong"
    return "\n".join([*project.notes, *_remote_notes(), f"{verdict}; next: dvc repro"])


def _remote_notes() -> Iterator[str]:
    """A default remote that is a folder and is not there; others take a network to ask (`medtune pull`)."""
    from dvc.config import Config, ConfigError

    try:
        config = Config(str(Path(".dvc").absolute()))
        name = config["core"].get("remote")
        url = str(config["remote"][name]["url"]) if name else None
    except (ConfigError, KeyError) as error:
        yield f"the DVC remote cannot be read from .dvc/config: {error}"
        return
    if url is None:
        yield "no default DVC remote for `dvc push` and `dvc pull`; docs/remotes.md sets one up"
    elif "://" not in url and not Path(url).is_dir():
        yield f"the DVC remote {name} ({url}) is not there yet: `dvc push` makes it; `dvc pull` finds nothing"


def _finetune_launch(project: Project) -> None:
    finetune = project.get(FinetuneParams)
    chosen = Launch.load(finetune.launch, "finetune.launch")
    chosen.require_divides(finetune.batch_size, "finetune.batch_size")
    if chosen.shares_weights:
        from medtune.run.device import choose_device

        chosen.require_gpus(choose_device(project.get(ComputeParams)).type)


def _answer_launch(project: Project) -> None:
    Launch.load(project.get(AnswerParams).launch, "answer.launch")


def _source(project: Project) -> None:
    params = project.get(DataParams)
    require_declared(params)
    files = named_files(params)
    project.notes += warnings(files)
    is_recorded = not files and _is_recorded("prepare", project, "data")
    if is_recorded or sum(path.stat().st_size for path in files if path.is_file()) > MUCH:
        # Pinned, it gave these sizes before; or it would take minutes, and `prepare` comes next.
        check_sources(params)
    else:
        _ = project.splits


def _system_prompt(project: Project) -> None:
    """The shipped prompt beside other questions than the shipped: the one says how the others are
    answered."""
    sources, prompt = project.get(DataParams).sources, project.get(PromptParams)
    if any(source.origin == "package" or source.system for source in sources.values()):
        return
    if " ".join(prompt.system.split()) == ontology.SYSTEM_PROMPT:
        raise MedtuneError(
            f"{PARAMS_FILE}: prompt.system is the shipped one, which speaks of organ systems; none of "
            f"data.sources "
            "asks for them: say how your questions are to be answered"
        )


def _lengths(project: Project) -> None:
    """Examples over `finetune.max_length`. To know takes seconds: only where an adapter would be lost."""
    model, finetune = project.get(ModelParams), project.get(FinetuneParams)
    sections = ("data", "model", "prompt", "finetune")
    if not ADAPTER.is_file() or not is_here(model) or _is_recorded("finetune", project, *sections):
        return
    from medtune.model.base import base_folder, load_tokenizer
    from medtune.model.chat import ChatEncoder
    from medtune.train.encoding import encode_examples
    from medtune.train.lengths import describe_lengths

    encoder = ChatEncoder(load_tokenizer(base_folder(model)), project.get(PromptParams))
    for split in ("train", "validation"):
        path = PREPARED / f"{split}.jsonl"
        try:
            with redirect_stdout(StringIO()):
                encoded = encode_examples(project.splits[split], encoder, finetune, path)
        except MedtuneError as error:
            project.problems.append(str(error))
            continue
        left_out, cut = len(encoded.dropped), len(encoded.shortened)
        told = describe_lengths(encoded.lengths, finetune.max_length)
        project.notes.append(f"{path}: {told}; {left_out} are left out, {cut} shortened")


def _shots(project: Project) -> None:
    """Whether each kind that is asked has training examples enough; what is drawn of them says no more."""
    params, kinds = project.get(AnswerParams), project.get(DataParams).kinds or {}
    if params.shots == 0 or _is_recorded("answer-shots", project, "data", "answer"):
        return
    for kind, sizes in kinds.items():
        if sizes.test != 0 and sizes.train is not None and sizes.train < params.shots:
            raise MedtuneError(
                f"{PARAMS_FILE}: answer.shots is {params.shots}, but data.kinds.{kind}.train is "
                f"{sizes.train}; lower the one or raise the other"
            )
    asked = {example.kind for example in project.splits["test"]}
    drawn_shots(project.splits["train"], asked, params.seed, params.shots)


def _is_recorded(stage: str, project: Project, *sections: str) -> bool:
    """Whether a stage has run with these sections, as dvc.lock has them of it and of what it reads."""
    try:
        stages = read_lock()
        known = stages["prepare"]["params"][PARAMS_FILE.name] | stages[stage]["params"][PARAMS_FILE.name]
        return all(known[section] == project.content[section] for section in sections)
    except (MedtuneError, KeyError):
        return False


def _kinds(project: Project) -> None:
    set_kinds, params = project.get(EvaluateParams).set_kinds, project.get(DataParams)
    if not set_kinds:
        return
    kinds = list(params.kinds or {example.kind for example in project.splits["test"]})
    for kind in set_kinds:
        if kind not in kinds:
            raise MedtuneError(
                f"{PARAMS_FILE}: evaluate.set_kinds has '{kind}', of which there are no questions; "
                f"{nearest(kind, kinds)}, or [] if no answer is a list"
            )


def _base_model(project: Project) -> None:
    check_files(project.get(ModelParams))


def _packages(project: Project) -> None:
    require_no_shadows()
    # With compute.quantization bitsandbytes is one of them.
    for meaning in digests_of(project.content).values():
        require_installed(meaning["packages"])


def _device(project: Project) -> None:
    compute, precision = project.get(ComputeParams), project.get(FinetuneParams).precision
    if compute.device != "cuda" and precision in ("auto", "float32"):
        return
    # Imported here: torch takes seconds to load, and only it knows the device.
    from medtune.run.device import choose_device, frozen_dtype

    frozen_dtype(precision, choose_device(compute))


def _adapter(project: Project) -> None:
    shape = known_shape(project.get(ModelParams))
    if shape is not None:
        project.get(FinetuneParams).lora.require_layers(shape.linears, shape.layers)


def _memory(project: Project) -> None:
    finetune = project.get(FinetuneParams)
    launch = Launch.load(finetune.launch, "finetune.launch")
    require_memory(
        project.get(ModelParams),
        project.get(ComputeParams),
        finetune.precision,
        finetune.lora,
        launch.processes if launch.shares_weights else 1,
    )


def _places(_: Project) -> None:
    """The folders outside the repository, of which environment variables may name unusable ones."""
    require_writable(cache_folder(), "MEDTUNE_CACHE")
    require_writable(progress_folder(), "MEDTUNE_PROGRESS")


def _trackers(_: Project) -> None:
    """Where the environment wants the curves of the training to go, too."""
    if os.environ.get("MEDTUNE_REPORT_TO"):
        from medtune.train.reporting import chosen_trackers

        chosen_trackers()


CHECKS: tuple[Callable[[Project], None], ...] = (
    _finetune_launch,
    _answer_launch,
    _source,
    _system_prompt,
    _shots,
    _kinds,
    _base_model,
    _adapter,
    _packages,
    _device,
    _memory,
    _places,
    _trackers,
    _lengths,
)
