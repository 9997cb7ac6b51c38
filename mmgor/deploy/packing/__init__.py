"""One file of n-bit weights."""
