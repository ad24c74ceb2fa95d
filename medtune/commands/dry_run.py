"""A dry run: the largest pass of a stage, to see how much memory that takes (trial.py makes it).

    python -m medtune.commands.dry_run finetune < sections.json       # or answer, unquantized

`medtune plan` starts it as a process of its own, so that the peak is the stage's. It prints one line of JSON,
bytes or, if there was too little memory, null:

    {"peak": 2634022912}
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medtune.core.errors import run
from medtune.core.outputs import resident_peak
from medtune.model.memory import Device
from medtune.run.launch import forget_other_launches
from medtune.run.libraries import keep_out
from medtune.run.params import MEMORY_KNOBS, ComputeParams


def main() -> None:
    """Try the stage that the command line names."""
    keep_out()
    forget_other_launches()
    stage, content = sys.argv[1], json.load(sys.stdin)
    device = Device.find(ComputeParams.of(content))
    if device.kind == "cpu":
        _stay_within(device.free)
    print(json.dumps({"peak": _peak(stage, content, device)}))


def _peak(stage: str, content: dict[str, Any], device: Device) -> int | None:
    # Imported after `keep_out`, as in a stage: PEFT brings what is not kept out, and it would count.
    import torch

    from medtune.commands.trial import Trial
    from medtune.run.device import NotEnoughMemoryError, device_memory_peak, enough_memory

    try:
        with enough_memory(MEMORY_KNOBS[stage]), TemporaryDirectory() as folder:
            trial = Trial(content, Path(folder))
            if stage == "finetune":
                trial.finetune()
            else:
                trial.answer(quantized=stage == "answer")
    except NotEnoughMemoryError:
        return None
    return device_memory_peak(torch.device(device.kind)) or resident_peak()


def _stay_within(free: int) -> None:
    """End with an error, or be ended, before anything else on this machine is."""
    try:
        import resource
    except ImportError:
        # Windows bounds no process in this way: there it runs as it does.
        return
    resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")


if __name__ == "__main__":
    run(main)
