"""The version of mmgor."""

__version__ = '0.1.0'
