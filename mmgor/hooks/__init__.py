"""Hooks of mmengine's Runner.

- ``gor_weight_hook``: moves the thetas, logs, checks and plots the loss
  weights (``weight_plot``), and measures the teachers (``teacher_metrics``).
- ``quant_calibration_hook``: calibrates quantizers before training.
- ``nonfinite_loss_hook``: skips steps with a loss or gradient that is not
  finite; ``broken_state`` says what was wrong.
- ``channels_last_hook``: trains in the channels-last memory layout.
- ``safe_checkpoint_hook``: checkpoints that survive a kill or a full disk.
- ``exact_resume_hook``: a resumed run is that without interruption; SIGTERM
  and Ctrl-C leave a checkpoint.
- ``report_hook``: the page of a training, when it ends.

Several hooks use ``student`` (find the student in a Runner and run it),
``optimizer_groups`` (no weight decay for thetas and step sizes) and
``training_batches`` (the batches that training starts with).
"""

from .channels_last_hook import ChannelsLastHook
from .exact_resume_hook import ExactResumeHook
from .gor_weight_hook import GoRWeightHook
from .nonfinite_loss_hook import NonFiniteLossHook
from .quant_calibration_hook import QuantCalibrationHook
from .report_hook import ReportHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .weight_plot import plot_weight_curves, read_scalars

__all__ = [
    'ChannelsLastHook',
    'ExactResumeHook',
    'GoRWeightHook',
    'NonFiniteLossHook',
    'QuantCalibrationHook',
    'ReportHook',
    'SafeCheckpointHook',
    'plot_weight_curves',
    'read_scalars',
]
