"""medtune: reproducible LoRA fine-tuning of Llama models on medical questions, under DVC."""

import logging
import sys

# To Python these two are not installed. On a CPU bitsandbytes would have `kernels` fetch a faster kernel from
# a hub and run it, code that no commit pins; it says on every import that it cannot. PEFT would import
# bitsandbytes for every model, which takes two seconds; `medtune.model.base` lets it in to quantise one.
# Imported already, it stays: of a second import half would be missing.
sys.modules["kernels"] = None  # type: ignore[assignment]
sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.CRITICAL)
