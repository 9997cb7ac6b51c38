"""Quantization-aware training of stock modules."""

from .base import BaseQuantizer
from .calibration import calibrate, quantized_layers, uncalibrated_layers
from .coverage import float_line
from .grid import Grid
from .layer_variants import (
    QuantConv1d,
    QuantConv2dAdaptivePadding,
    QuantConvAWS2d,
    QuantConvWS2d,
    QuantDeformConv2d,
    QuantDeformConv2dPack,
    QuantMaskedConv2d,
    QuantModulatedDeformConv2d,
    QuantModulatedDeformConv2dPack,
    QuantNormedLinear,
    QuantSAConv2d,
    QuantTridentConv,
)
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
from .transformers import (
    QuantConditionalDETR,
    QuantDABDETR,
    QuantDDQDETR,
    QuantDeformableDETR,
    QuantDETR,
    QuantDINO,
)
from .weights import counting_macs, layer_macs, weighted_layers
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
    'QuantConditionalDETR',
    'QuantConv1d',
    'QuantConv2d',
    'QuantConv2dAdaptivePadding',
    'QuantConvAWS2d',
    'QuantConvTranspose2d',
    'QuantConvWS2d',
    'QuantDABDETR',
    'QuantDDQDETR',
    'QuantDETR',
    'QuantDINO',
    'QuantDeformConv2d',
    'QuantDeformConv2dPack',
    'QuantDeformableDETR',
    'QuantHead',
    'QuantLinear',
    'QuantMaskedConv2d',
    'QuantModulatedDeformConv2d',
    'QuantModulatedDeformConv2dPack',
    'QuantNeck',
    'QuantNormedLinear',
    'QuantPolicy',
    'QuantSAConv2d',
    'QuantTridentConv',
    'calibrate',
    'counting_macs',
    'float_line',
    'format_table',
    'input_groups',
    'layer_macs',
    'layer_table',
    'quantized_layers',
    'save_table',
    'share_ranges',
    'uncalibrated_layers',
    'weighted_layers',
]
