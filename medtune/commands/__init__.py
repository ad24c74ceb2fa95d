"""What `medtune` offers beside dvc."""
