"""Rounding errors of weights, computed by hand."""

import pytest
import torch
from torch import nn

from mmgor.quantization.layers.quant_layers import to_quantized
from mmgor.quantization.quantizers.lsq import LSQQuantizer
from mmgor.training_report.weights import weight_errors


def linear(rows, scales, bits=3):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    quantizer = LSQQuantizer(bits, len(rows), True, for_weight=True)
    to_quantized(layer, quantizer, LSQQuantizer(bits))
    quantizer.set_ranges(torch.tensor(scales), *[torch.zeros(len(rows))] * 3)
    quantizer.choose_range(signed=True)
    return nn.Sequential(layer)


def test_error_range_and_clipping():
    # 3 bits: integers -3 to 3. Rounded: (3, -1, 0, 1) and (0.5, 0, 0, 0).
    model = linear([[4.0, -1.0, 0.4, 1.0], [0.5, 0.0, 0.2, 0.0]], [1.0, 0.5])
    (error,) = weight_errors(model).values()
    squares = 16 + 1 + 0.16 + 1 + 0.25 + 0.04
    assert error.error == pytest.approx(((1 + 0.16 + 0.04) / squares) ** 0.5)
    assert error.used == pytest.approx((3 / 3 + 1 / 3) / 2)
    assert error.clipped == pytest.approx(1 / 8)


def test_layers_without_ranges_are_left_out():
    model = linear([[1.0]], [1.0])
    model[0].weight_quantizer.forget_range()
    assert weight_errors(model) == {}
    assert weight_errors(nn.Linear(2, 2)) == {}
