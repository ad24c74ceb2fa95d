"""Libraries that other libraries would bring along for nothing, or worse."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import cache_from_source
from pathlib import Path

from medtune.core.errors import MedtuneError


def keep_out() -> None:
    """Let this process, which is medtune's own, run without bitsandbytes and `kernels` until it quantises.

    PEFT imports bitsandbytes for every model if it is installed, which takes two seconds. With None in their
    place Python takes them for not installed; `medtune.model.base` lets bitsandbytes in to quantise. One that
    is imported already stays: of a second import half would be missing. A process of the user's own, such as
    a notebook, is left as it is.
    """
    for name in ("bitsandbytes", "kernels"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def forget_stale_bytecode() -> None:
    """Delete what Python has compiled of a module of ours before the module got its present content.

    Python compares the time of the source in whole seconds, and its size: an edit that is taken back within
    the second would go on running, while the digest of the code is that of the source.
    """
    for package in ("medtune", "stages"):
        for source in (Path(__file__).parents[2] / package).rglob("*.py"):
            compiled = Path(cache_from_source(str(source)))
            with suppress(FileNotFoundError):
                if compiled.stat().st_mtime_ns <= source.stat().st_mtime_ns:
                    _delete(compiled)


def _delete(compiled: Path) -> None:
    try:
        compiled.unlink(missing_ok=True)
    except OSError as error:
        raise MedtuneError(
            f"{compiled}: may be of older code and cannot be deleted ({error.strerror}); delete it"
        ) from None


@contextmanager
def without_hub_kernels() -> Iterator[None]:
    """Import here what imports bitsandbytes.

    On a CPU with AVX512-BF16 that would, while it is imported, have `kernels` fetch a faster kernel from a
    hub and run it, code that no commit pins. Without `kernels` it goes on, and would complain.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.CRITICAL)
    known = sys.modules.get("kernels", ...)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if known is ...:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = known
