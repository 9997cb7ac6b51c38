"""Hooks: calibration, shared inputs, loss weights, non-finite losses."""

from .gor_weight_hook import GoRWeightHook
from .nonfinite_loss_hook import NonFiniteLossHook
from .quant_calibration_hook import QuantCalibrationHook
from .shared_input_hook import SharedInputHook
from .weight_plot import plot_weight_curves, read_scalars

__all__ = [
    'GoRWeightHook',
    'NonFiniteLossHook',
    'QuantCalibrationHook',
    'SharedInputHook',
    'plot_weight_curves',
    'read_scalars',
]
