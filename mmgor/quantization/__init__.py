"""Quantization-aware training (QAT) of stock mmdet modules.

How a weight is rounded, in the order in which the calls happen:

1. ``wrappers.py`` and ``transformers.py`` build a stock module. ``policy.py``
   decides the bits of each layer, and ``convert.py`` turns the layers into
   quantized ones, in place.
2. In every forward pass, ``QuantLayerMixin.quantized_weight`` in
   ``layers/quant_layers.py`` passes the layer's weight to its quantizer.
3. The quantizer (one file per kind in ``quantizers/``) calls
   ``fake_quantize`` in ``quantizers/functional.py``. That function rounds. In
   training, ``quantizers/compiled.py`` runs it as one kernel. PACT and DoReFa
   round in functions of their own, also in ``functional.py``.

A layer's input goes through ``input_quantizer`` in the same way. With
``tensors='all'``, the folder ``tensors`` lets operations between layers round
what they read, too. The first scales come from ``calibration.py``.
"""

from .calibration import (
    calibrate,
    quantized_layers,
    tensor_quantizers,
    uncalibrated_layers,
)
from .compensation import compensate_weights
from .coverage import float_line
from .equalization import ChannelFit, equalize, fit_channels
from .layers.quant_layers import QuantConv2d, QuantConvTranspose2d, QuantLinear
from .layers.variants import (
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
from .layers.weights import counting_macs, layer_macs, weighted_layers
from .norms import EvalBatchNorm2d, correct_norms
from .policy import LayerBits, QuantPolicy
from .quantizers.base import BaseQuantizer, without_rounding
from .quantizers.dorefa import DoReFaQuantizer
from .quantizers.grid import Grid
from .quantizers.lsq import LSQPlusQuantizer, LSQQuantizer
from .quantizers.minmax import MinMaxQuantizer
from .quantizers.observer import PassThrough
from .quantizers.pact import PACTQuantizer
from .report import format_table, layer_table, save_table
from .tensors.grids import FixedQuantizer, GivenQuantizer
from .tensors.rounding import fused_silus
from .transformers import (
    QuantConditionalDETR,
    QuantDABDETR,
    QuantDDQDETR,
    QuantDeformableDETR,
    QuantDETR,
    QuantDINO,
    QuantGroundingDINO,
)
from .wrappers import QuantBackbone, QuantHead, QuantNeck

__all__ = [
    'BaseQuantizer',
    'ChannelFit',
    'DoReFaQuantizer',
    'EvalBatchNorm2d',
    'FixedQuantizer',
    'GivenQuantizer',
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
    'QuantGroundingDINO',
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
    'compensate_weights',
    'correct_norms',
    'counting_macs',
    'equalize',
    'fit_channels',
    'float_line',
    'format_table',
    'fused_silus',
    'layer_macs',
    'layer_table',
    'quantized_layers',
    'save_table',
    'tensor_quantizers',
    'uncalibrated_layers',
    'weighted_layers',
    'without_rounding',
]
