"""medtune: reproducible LoRA fine-tuning of Llama models on medical questions, under DVC."""

import logging
import sys

# On a CPU bitsandbytes would have this package fetch a faster kernel from a hub and run it, code that no
# commit pins. To Python it is not installed; bitsandbytes says so on every import.
sys.modules["kernels"] = None  # type: ignore[assignment]
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.CRITICAL)
