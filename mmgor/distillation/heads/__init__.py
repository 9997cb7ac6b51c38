"""KD heads: here a teacher's output meets the student's.

``base`` has what all heads share. ``logits``, ``scores`` (both on
``class_base``), ``boxes``, ``detections`` and ``features`` compare one kind of
output each; ``connectors`` bring features to the teacher's channels.
"""
