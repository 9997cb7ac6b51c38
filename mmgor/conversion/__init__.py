"""Turns anybody's detector config into that of a low-bit student."""
