"""Writes the ``.pte`` files of ExecuTorch with XNNPACK.

:func:`~.writer.write_executorch` is the entry point.
"""
