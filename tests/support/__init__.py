"""Toys that many tests share."""
