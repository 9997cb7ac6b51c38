"""The demo: arms trained one after another, a table and pictures."""
