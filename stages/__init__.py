"""The stages' entry points, to be read from top to bottom. What they are made of is in `medtune`."""

import sys

from medtune.core.errors import run
from medtune.run.libraries import forget_stale_bytecode, keep_out
from medtune.run.shadowing import require_no_shadows


def _ready() -> None:
    """See that a stage will be the code that is here, before it imports any."""
    require_no_shadows()
    forget_stale_bytecode()
    keep_out()


if sys.argv[:1] == ["-m"]:
    # `python -m stages.X` still looks for its module: what is wrong is to be one line. Others catch it.
    run(_ready)
else:
    _ready()
