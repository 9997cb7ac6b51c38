"""Hooks: checkpoints, calibration, shared inputs, loss weights, bad losses."""

from .gor_weight_hook import GoRWeightHook
from .nonfinite_loss_hook import NonFiniteLossHook
from .quant_calibration_hook import QuantCalibrationHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .shared_input_hook import SharedInputHook
from .weight_plot import plot_weight_curves, read_scalars

__all__ = [
    'GoRWeightHook',
    'NonFiniteLossHook',
    'QuantCalibrationHook',
    'SafeCheckpointHook',
    'SharedInputHook',
    'plot_weight_curves',
    'read_scalars',
]
