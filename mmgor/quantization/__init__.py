"""Quantization-aware training of stock modules."""

from .base import BaseQuantizer
from .calibration import calibrate, quantized_layers, uncalibrated_layers
from .grid import Grid
from .layers import QuantConv2d, QuantConvTranspose2d, QuantLinear
from .norms import EvalBatchNorm2d
from .observer import PassThrough
from .policy import LayerBits, QuantPolicy
from .quantizers import (
    DoReFaQuantizer,
    LSQPlusQuantizer,
    LSQQuantizer,
    MinMaxQuantizer,
    PACTQuantizer,
)
from .report import format_table, layer_table, save_table
from .shared_inputs import input_groups, share_ranges
from .transformers import QuantDeformableDETR, QuantDINO
from .wrappers import QuantBackbone, QuantHead, QuantNeck

__all__ = [
    'BaseQuantizer',
    'DoReFaQuantizer',
    'EvalBatchNorm2d',
    'Grid',
    'LSQPlusQuantizer',
    'LSQQuantizer',
    'LayerBits',
    'MinMaxQuantizer',
    'PACTQuantizer',
    'PassThrough',
    'QuantBackbone',
    'QuantConv2d',
    'QuantConvTranspose2d',
    'QuantDINO',
    'QuantDeformableDETR',
    'QuantHead',
    'QuantLinear',
    'QuantNeck',
    'QuantPolicy',
    'calibrate',
    'format_table',
    'input_groups',
    'layer_table',
    'quantized_layers',
    'save_table',
    'share_ranges',
    'uncalibrated_layers',
]
