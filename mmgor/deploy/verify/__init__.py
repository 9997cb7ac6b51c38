"""Compares an exported file with the checkpoint it came from."""
