"""Exports a trained detector as an ONNX or OpenVINO file.

:func:`~.exporter.export_detector` is the entry point.
"""
