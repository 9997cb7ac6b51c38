"""Finds first, prediction and shared layers by a forward pass on zeros."""
