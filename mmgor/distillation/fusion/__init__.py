"""One target out of several teachers."""
