"""Read and write configs, checkpoints and class names."""
