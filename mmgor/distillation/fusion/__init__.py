"""Fuse the outputs of several teachers into one target for the student.

``probabilities`` fuses class scores location by location, ``boxes`` fuses
detections.
"""
