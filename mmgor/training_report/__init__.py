"""One HTML page on a training, from what is in its work directory.

- ``write``: puts the page together
- ``run_files``: finds log, config and checkpoints
- ``summary``, ``sections`` (from the log), ``model_sections`` (from the
  checkpoints) and ``image_section``: the parts of the page
- ``weights``, ``scales``, ``matching``: figures of weights, step sizes and
  detections
- ``detections``, ``pictures``: run the models on images, and draw them
"""

from .write import NUM_IMAGES, write_report

__all__ = ['NUM_IMAGES', 'write_report']
