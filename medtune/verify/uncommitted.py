"""What is here and not as the commit has it, among the files that decide or say what a run is."""

import subprocess

from medtune.core.section import PARAMS_FILE
from medtune.run.lock_file import LOCK_FILE

DECIDES = (str(LOCK_FILE), "dvc.yaml", str(PARAMS_FILE), "requirements", "digests", "medtune", "stages")
IMPORTED = tuple(f":(glob){name}.{end}" for name in ("*", "*/__init__") for end in ("py", "pyc", "so"))
"""Modules and packages in the top folder: Python looks for those of libraries there too."""
SAYS = ("models/record.json", "metrics", ":!metrics/timing.json", ":!metrics/environment.json")


def uncommitted() -> list[str]:
    """Files that decide or say what is here and are not as the commit has them; none without git."""
    command = ["git", "status", "--porcelain", "--", *DECIDES, *IMPORTED, *SAYS]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [line[3:] for line in lines]
