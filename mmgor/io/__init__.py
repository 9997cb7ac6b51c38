"""Configs, checkpoints and class names: how they are read and written."""
