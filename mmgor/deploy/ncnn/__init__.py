"""Writes the ``.param`` and ``.bin`` files of ncnn.

:func:`~.writer.write_ncnn` is the entry point.
"""
