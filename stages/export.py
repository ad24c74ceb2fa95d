"""Export the adapter and ask each format in its runtime, if dvc.yaml has a stage for it.

    python -m stages.export merged gguf      those formats: models/export/{merged,gguf}

By default there is none: `medtune export --stage` puts it into dvc.yaml, and `dvc repro` then keeps the
exports those of the adapter. Params: model, prompt, compute, answer, evaluate, export.
"""

import sys

from medtune.commands.export import chosen_formats, describe_export
from medtune.core.errors import run
from medtune.export.places import require_passed
from medtune.run.libraries import forget_stale_bytecode, keep_out
from medtune.run.stage import only_here


def main() -> None:
    formats = chosen_formats(sys.argv[1:])
    forget_stale_bytecode()
    keep_out()
    # Imported here: torch takes seconds to load, and first what is asked for has to be right.
    from medtune.export.exporting import Options, export

    with only_here("export"):
        found = export(formats, Options())
    print(describe_export(found, formats))
    require_passed(found, formats)


if __name__ == "__main__":
    run(main)
