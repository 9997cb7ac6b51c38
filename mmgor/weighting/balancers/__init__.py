"""Balancers from the literature, one per file."""
