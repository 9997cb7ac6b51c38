"""Teachers: frozen detectors whose outputs the student learns from.

``collection`` has the named teachers of a student, ``teacher`` a single one.
The other files are its steps: ``loading``, ``preprocessing``, ``forward`` and
``class_mapping``.
"""
