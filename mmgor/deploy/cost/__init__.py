"""Measure the cost of each layer of a detector, and report it."""
