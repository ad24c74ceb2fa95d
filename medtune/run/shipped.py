"""The stages that are shipped; whatever else dvc.yaml and dvc.lock have, somebody has added."""

SHIPPED = ("code", "prepare", "finetune", "answer-base", "answer-tuned", "answer-shots", "evaluate")
"""In the order in which they run."""
