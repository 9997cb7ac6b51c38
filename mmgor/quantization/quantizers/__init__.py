"""Quantizers: how one tensor is rounded."""
