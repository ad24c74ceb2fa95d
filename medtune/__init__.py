"""medtune: reproducible LoRA fine-tuning of Llama models on medical questions, under DVC.

    from medtune import Answerer

    print(Answerer.load("models/adapter").ask("What is arachnodactyly?"))

What stands in `__all__` is for users; everything below the packages may change. An import of medtune loads
nothing else: torch comes with the first name that needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtune.answer.answerer import Answerer
    from medtune.core.errors import MedtuneError

__all__ = ["Answerer", "MedtuneError"]

_MODULES = {"Answerer": "medtune.answer.answerer", "MedtuneError": "medtune.core.errors"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'medtune' has no attribute '{name}'")
    from medtune.run.libraries import without_hub_kernels

    with without_hub_kernels():
        return getattr(import_module(_MODULES[name]), name)
