"""How fast `prepare` reads, cleans and splits, and how much memory it takes, beside a plain map and filter.

    python -m benchmarks.prepare [--rows 10000 100000 1000000] [--rounds 3]

Generated questions of about 60 words, of which some repeat others. Both sides take turns, each in a process
of its own: `medtune` is the stage's work without near duplicates and with them, `plain` is `datasets` with
one map (an example from a row) and one filter, and nothing else. Shown are medians with their spread. The
last line is JSON.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import side

SIDES = {
    "plain": """
import sys
from datasets import load_dataset
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
rows = rows.map(lambda row: {"text": row["context"].strip() + " " + row["question"].strip()})
rows = rows.filter(lambda row: len(row["text"]) > 0)
rows.to_json(sys.argv[2] + "/out.jsonl")
""",
    "medtune": """
import sys
from pathlib import Path
from medtune.core.examples import write_jsonl
from medtune.data.params import DataParams
from medtune.data.preparation import prepare
near = float(sys.argv[3]) or None
params = DataParams.model_validate({"sources": {"made": {"path": "data/raw/made.jsonl"}}, "seed": 7,
    "validation": 0.1, "test": 0.2, "near_duplicates": near, "on_error": "drop"})
for split, examples in prepare(params).splits.items():
    write_jsonl(Path(sys.argv[2]) / f"{split}.jsonl", examples)
""",
}
MEASURE = """
import resource, sys, time
start = time.perf_counter()
exec(compile(sys.argv.pop(1), "side", "exec"))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="prepare beside a plain map and filter")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    table, results = [], []
    for count in arguments.rows:
        found = compared(count, arguments.rounds)
        results.append({"rows": count} | found)
        for name, figures in found.items():
            table.append([f"{count:,}", name, *map(str, figures["shown"])])
    side.print_table(["rows", "side", "rows/s", "peak MB", "time to plain"], table)
    print(json.dumps(results))


def compared(count: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds and megabytes of each side over `count` rows, in turns."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data/raw").mkdir(parents=True)
        write_rows(folder / "data/raw/made.jsonl", count)
        runs: dict[str, list[tuple[float, float]]] = {
            "plain": [],
            "medtune": [],
            "medtune, near duplicates": [],
        }
        for _ in range(rounds):
            for key, taken in runs.items():
                taken.append(measured(key.partition(",")[0], "0.8" if "near" in key else "0", folder))
    plain = [seconds for seconds, _ in runs["plain"]]
    found: dict[str, dict[str, Any]] = {}
    for key, taken in runs.items():
        seconds, memory = [one for one, _ in taken], [one for _, one in taken]
        ratios = [mine / theirs for mine, theirs in zip(seconds, plain, strict=True)]
        shown = [f"{count / median(seconds):,.0f}", f"{median(memory):,.0f}"]
        shown.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        found[key] = {"seconds": seconds, "megabytes": memory, "ratios": ratios, "shown": shown}
    return found


def measured(name: str, near: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of one side in a process of its own."""
    with TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", MEASURE, SIDES[name], "data/raw/made.jsonl", scratch, near]
        printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    seconds, memory = map(float, printed.splitlines()[-1].split())
    return seconds, memory


def write_rows(path: Path, count: int) -> None:
    """Questions with a context of some fifty words; every tenth repeats an earlier one, nearly or whole."""
    drawn = random.Random(7)
    words = [f"term{number}" for number in range(3000)]
    earlier: list[list[str]] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            context = drawn.choices(words, k=drawn.randint(30, 70))
            if earlier and number % 10 == 0:
                context = [*drawn.choice(earlier), *(["added"] if number % 20 else [])]
            if len(earlier) < 5000:
                earlier.append(context)
            row = {"id": number, "question": f"Is it case {number % 997}?", "context": " ".join(context)}
            file.write(json.dumps(row | {"answer": ("yes", "no")[len(context) % 2]}) + "\n")


if __name__ == "__main__":
    main()
