"""Check what can be known before anything runs, then write what each stage's code means.

    python -m stages.code

DVC deletes a stage's outputs before it runs the stage, so what would make a later stage fail at once is said
here, where nothing is lost yet: a mistake in any section of params.yaml, a launch file, the source of the
questions, a missing package or device (medtune/commands/check.py). Writes digests/{prepare,finetune,answer,
evaluate}.json (medtune/run/code.py), each a dependency of the stages it is named after.
Params: all.
"""

from pathlib import Path

from medtune.commands.check import check_project
from medtune.core.errors import MedtuneError
from medtune.core.errors import run as run_program
from medtune.core.outputs import write_json
from medtune.core.section import PARAMS_FILE
from medtune.core.yaml_file import read_yaml
from medtune.run.code import DIGESTS, digests_of
from medtune.run.shadowing import ROOT
from medtune.run.stage import only_here


def main() -> None:
    if Path.cwd().resolve() != ROOT:
        raise MedtuneError(f"Python imports medtune from {ROOT}, not from this folder; run it in that one")
    content = read_yaml(PARAMS_FILE)
    digests = digests_of(content)
    if problems := check_project(content):
        raise MedtuneError("\nerror: ".join(problems))

    if read_yaml(PARAMS_FILE) != content or digests_of(content) != digests:
        raise MedtuneError("code: params.yaml or the code was edited while it ran; run `dvc repro` again")
    for module, meaning in digests.items():
        write_json(DIGESTS / f"{module}.json", meaning)


def alone() -> None:
    with only_here("code"):
        main()


if __name__ == "__main__":
    run_program(alone)
