"""Writes ``.tflite`` files for LiteRT and for Arm's Ethos-U.

:func:`~.writer.write_litert` is the entry point.
"""
