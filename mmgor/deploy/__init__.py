"""From a trained checkpoint to a file that runs without torch's training."""
