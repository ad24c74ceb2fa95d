"""The stages' entry points, to be read from top to bottom. What they are made of is in `medtune`."""

from medtune.run.libraries import forget_stale_bytecode, keep_out

forget_stale_bytecode()
keep_out()
