"""The command ``mmgor``; each of its own commands is one file here."""
