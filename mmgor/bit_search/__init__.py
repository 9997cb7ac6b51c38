"""Finds the bits of every layer that meet a budget at the least cost."""
