"""Compares an exported file with its checkpoint."""
