"""Products on Apple GPUs."""
