"""Libraries that other libraries would bring along for nothing."""

import sys


def keep_out() -> None:
    """Let this process, which is medtune's own, run without bitsandbytes and `kernels` until it quantises.

    PEFT imports bitsandbytes for every model if it is installed, which takes two seconds, and `kernels` would
    fetch code from a hub. With None in their place Python takes them for not installed; `medtune.model.base`
    lets bitsandbytes in to quantise. One that is imported already stays: of a second import half would be
    missing. A process of the user's own, such as a notebook, is left as it is.
    """
    for name in ("bitsandbytes", "kernels"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
