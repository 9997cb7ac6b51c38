"""Small frozen networks, as ``freeze`` leaves a detector."""

import torch
from torch import nn

from mmgor.deploy.export.onnx_ops import dequantize, quantize_dequantize


class Rounding(nn.Module):
    """Rounds a tensor to ``scale * q``, for ``qmin <= q <= qmax``."""

    def __init__(self, scale, qmin, qmax):
        super().__init__()
        self.range = qmin, qmax
        dtype = torch.uint8 if qmin >= 0 else torch.int8
        scale = torch.as_tensor(scale)
        self.register_buffer('scale', scale)
        self.register_buffer('zero', torch.zeros_like(scale, dtype=dtype))

    def forward(self, x):
        return quantize_dequantize(x, self.scale, self.zero, *self.range, 1)


class IntegerConv(nn.Module):
    """A rounded input, a convolution with integer weights, a batch norm."""

    def __init__(self, inputs, outputs, rounding, largest=127, **options):
        super().__init__()
        self.input_quantizer = rounding
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, **options)
        shape = conv.weight.shape
        integers = torch.randint(-largest, largest + 1, shape)
        self.register_buffer('integers', integers.to(torch.int8))
        self.register_buffer('scale', torch.rand(outputs) / largest / 8)
        self.conv = conv
        self.norm = nn.BatchNorm2d(outputs).eval()
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        weight = dequantize(self.integers, self.scale)
        x = self.input_quantizer(x)
        return self.norm(self.conv._conv_forward(x, weight, self.conv.bias))


class SmallNetwork(nn.Module):
    """Two convolutions, a sum, pooling, resizing and concatenation.

    Every tensor is rounded, to ``bits`` before the second and the third
    convolution. With the unit 1 the scales are powers of two. Then many sums
    lie halfway between two steps.
    """

    def __init__(self, bits=8, unit=1.0):
        super().__init__()

        def rounding(step, *bounds):
            return Rounding(step * unit, *bounds)

        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.stem = IntegerConv(3, 8, rounding(1 / 32, -128, 127))
        self.block = IntegerConv(8, 8, rounding(1 / 8, 0, 2**bits - 1), 7)
        self.inner = rounding(1 / 16, -128, 127)
        self.joined = rounding(1 / 8, 0, 255)
        self.head = IntegerConv(16, 4, rounding(1 / 4, low, high), bias=False)
        self.output = rounding(1 / 16, -128, 127)

    def forward(self, images):
        x = torch.relu_(self.stem(images))
        x = self.block.input_quantizer(x)
        y = self.inner(self.block(x))
        x = self.joined(torch.relu_(x + y))
        pooled = nn.functional.max_pool2d(x, 2)
        resized = nn.functional.interpolate(pooled, scale_factor=2.0)
        x = torch.cat([x, self.joined(resized)], 1)
        return [self.output(self.head(x - 3.0))]
