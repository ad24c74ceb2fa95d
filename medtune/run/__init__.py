"""How a stage runs: its processes, its progress, its record."""
