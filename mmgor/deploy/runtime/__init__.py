"""Runs exported files.

``runtime`` gives raw outputs, ``runtime_detector`` decodes them with mmdet,
``detector`` takes images and videos.
"""
