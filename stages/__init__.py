"""The stages' entry points, to be read from top to bottom. What they are made of is in `medtune`."""

from medtune.run.libraries import keep_out

keep_out()
