"""A table of the profiles: the memory each needs, and time and result as far as measured.

    python -m medtune.commands.profile_table       # writes docs/profiles.md

Memory is planned, for the longest examples that are allowed (plan.py). Time and result are those of the run
that `dvc.lock` and `metrics/` hold, and stand only beside profiles whose settings that run had.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtune.commands.plan import Settings, parts_at_most
from medtune.commands.profiles import PROFILES, list_profiles
from medtune.core.errors import run
from medtune.core.outputs import TIMING_FILE, read_json, write_text
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.model.memory import GIB
from medtune.run.lock_file import read_lock

PAGE = Path("docs/profiles.md")
DETAILS_FILE = Path("metrics/details.json")
NOT_MEASURED = "not measured"
HEAD = """\
# The profiles

Made by `python -m medtune.commands.profile_table`, from `profiles/`, `metrics/` and `dvc.lock`.
`medtune use NAME` puts one into `params.yaml`; `medtune plan NAME` says what it needs on your machine.

Memory is what one process needs at most, for examples of `finetune.max_length` tokens, on the device that the
profile is for: planned, not measured ([memory.md](memory.md)). Time and result are those of the committed
run, of all its stages, on the machine of `metrics/environment.json`. A profile of questions takes the model
that `params.yaml` has, and its memory.

| profile | what it is | device | training, GiB | answering, GiB | time | exact answers, untuned and tuned |
|---|---|---|---|---|---|---|
"""


def profile_table() -> str:
    """The page, as Markdown."""
    return HEAD + "".join(_row(name, about) for name, about in list_profiles().items())


def _row(name: str, about: str) -> str:
    content = read_yaml(PROFILES / f"{name}.yaml")
    memory = _memory(name) if "model" in content else ("", "", "")
    measured = _measured() if _was_run(content) else (NOT_MEASURED, NOT_MEASURED)
    return f"| {' | '.join([f'`{name}`', about.replace('|', '/'), *memory, *measured])} |\n"


def _memory(name: str) -> tuple[str, str, str]:
    """The kind of device a profile of a model is for, and the GiB of training and answering there."""
    settings = Settings.load(name)
    kind = "cpu" if settings.model.source.startswith("package:") else "cuda"
    needs = {stage: sum(parts_at_most(settings, stage, kind).values()) / GIB for stage in settings.stages}
    answering = max(size for stage, size in needs.items() if stage != "finetune")
    return kind, f"{needs['finetune']:.1f}", f"{answering:.1f}"


def _was_run(profile: Mapping[str, Any]) -> bool:
    """Whether the run in dvc.lock had all the settings of a profile."""
    had: dict[str, Any] = {}
    for stage in read_lock().values():
        had |= stage.get("params", {}).get(PARAMS_FILE.name, {})
    return _holds(had, profile)


def _holds(content: Any, part: Any) -> bool:
    if isinstance(part, Mapping):
        return isinstance(content, Mapping) and all(
            key in content and _holds(content[key], value) for key, value in part.items()
        )
    return content == part


def _measured() -> tuple[str, str]:
    seconds = sum(stage["seconds"] for stage in read_json(TIMING_FILE).values())
    figures = read_json(DETAILS_FILE)["all"]
    base, tuned = (f"{figures[name]['accuracy']:.0%}" for name in ("base", "tuned"))
    return f"{seconds / 60:.0f} min", f"{base}, {tuned} of {figures['tuned']['n']}"


def main() -> None:
    """Write the page."""
    write_text(PAGE, profile_table())


if __name__ == "__main__":
    run(main)
