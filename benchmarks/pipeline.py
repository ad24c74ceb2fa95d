"""What stands between a command and its work: DVC's own overhead, imports, loading a model.

    python -m benchmarks.pipeline

Run in a repository whose pipeline is up to date. Commands take turns; shown are medians. The last line is
JSON.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import yaml

from benchmarks import side

ROUNDS = 7
LOAD_MODEL = """
import time
start = time.perf_counter()
from medtune import Answerer
Answerer.load
imported = time.perf_counter()
Answerer.load(adapter=None)
print(imported - start, time.perf_counter() - imported)
"""


def main() -> None:
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    if "Data and pipelines are up to date" not in output("dvc", "repro"):
        sys.exit("the pipeline is not up to date; run: dvc repro")
    with TemporaryDirectory() as folder:
        empty = Path(folder)
        output("git", "init", "--quiet", cwd=empty)
        output("dvc", "init", "--quiet", cwd=empty)
        (empty / "input").write_text("nothing")
        content = {"stages": {name: {"cmd": "true", "deps": ["input"]} for name in stages}}
        (empty / "dvc.yaml").write_text(yaml.safe_dump(content))
        output("dvc", "repro", cwd=empty)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(seconds("dvc", "repro"))
            theirs.append(seconds("dvc", "repro", cwd=empty))
    ratio = median(ours) / median(theirs)
    start = median(seconds("medtune", "--help") for _ in range(ROUNDS))
    loads = [[float(f) for f in output(sys.executable, "-c", LOAD_MODEL).split()] for _ in range(3)]
    imports, loading = (median(figures) for figures in zip(*loads, strict=True))
    modules = output(sys.executable, "-c", "import sys, medtune.commands.cli; print(*sys.modules)").split()
    side.print_table(
        ["command", "seconds", "ratio"],
        [
            ["dvc repro with nothing to do", f"{median(ours):.2f}", f"{ratio:.2f}"],
            ["the same with empty stages", f"{median(theirs):.2f}", "1.00"],
            ["medtune --help", f"{start:.2f}", ""],
            ["imports of answer-tuned", f"{imports:.2f}", ""],
            ["loading its model", f"{loading:.2f}", ""],
        ],
    )
    print(
        json.dumps(
            {
                "noop_repro": ratio,
                "help_seconds": start,
                "help_imports_torch": "torch" in modules,
                "import_seconds": imports,
                "load_seconds": loading,
            }
        )
    )


def seconds(*command: str, cwd: Path | None = None) -> float:
    start = time.perf_counter()
    output(*command, cwd=cwd)
    return time.perf_counter() - start


def output(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
