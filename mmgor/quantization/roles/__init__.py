"""The roles of layers, seen in a run on zeros."""
