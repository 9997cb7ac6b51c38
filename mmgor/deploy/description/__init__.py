"""The description in an exported file, written and checked."""
