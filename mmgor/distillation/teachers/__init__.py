"""Teachers: frozen detectors outside the student."""
