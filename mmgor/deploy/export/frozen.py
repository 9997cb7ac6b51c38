"""A trained network with its integers in place of its quantizers."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mmgor.io.checkpoint import non_finite_keys
from mmgor.quantization import (
    BaseQuantizer,
    quantized_layers,
    uncalibrated_layers,
)
from mmgor.quantization.layers.quant_layers import QuantLayerMixin

from .onnx_ops import dequantize, quantize_dequantize

_SHOWN = 5


class FrozenInput(nn.Module):
    """An input quantizer as integers, one grid a call of a pass.

    Args:
        quantizer (BaseQuantizer): Calibrated input quantizer.
        dims (int): Axes of the input.
    """

    def __init__(self, quantizer: BaseQuantizer, dims: int) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int]] = []
        self.shifted: list[bool] = []
        self._slot = 0
        for slot in range(quantizer.num_slots):
            grid = quantizer.grid(torch.zeros([1] * dims), slot)
            low, high = (0, 255) if grid.qmin >= 0 else (-128, 127)
            stored = grid.zero_point.clamp(low, high)
            shift = (grid.zero_point - stored) * grid.scale
            if shift.dim():
                shift = shift.view(-1, *[1] * (dims - 2))
            self.ranges.append((grid.qmin, grid.qmax))
            self.shifted.append(bool(shift.any()))
            dtype = torch.uint8 if grid.qmin >= 0 else torch.int8
            self.register_buffer(f'scale_{slot}', grid.scale)
            self.register_buffer(f'zero_point_{slot}', stored.to(dtype))
            self.register_buffer(f'shift_{slot}', shift)

    def forward(self, x: Tensor) -> Tensor:
        slot = self._slot
        self._slot = (slot + 1) % len(self.ranges)
        scale = self.get_buffer(f'scale_{slot}')
        zero_point = self.get_buffer(f'zero_point_{slot}')
        if not self.shifted[slot]:
            return quantize_dequantize(
                x, scale, zero_point, *self.ranges[slot], 1
            )
        # A learned offset can put zero outside the range, where no zero
        # point of the stored type reaches.
        shift = self.get_buffer(f'shift_{slot}')
        moved = quantize_dequantize(
            x + shift, scale, zero_point, *self.ranges[slot], 1
        )
        return moved - shift


class FrozenWeight(nn.Module):
    """A weight quantizer with its weight as stored integers.

    Args:
        layer (QuantLayerMixin): Calibrated layer.
    """

    integers: Tensor
    scale: Tensor

    def __init__(self, layer: QuantLayerMixin) -> None:
        super().__init__()
        integers, grid = layer.weight_integers()
        self.register_buffer('integers', integers.to(torch.int8))
        self.register_buffer('scale', grid.scale)

    def forward(self, weight: Tensor) -> Tensor:
        return dequantize(self.integers, self.scale)


def check_calibrated(model: nn.Module) -> None:
    """Make sure that a model has integers to deploy.

    Raises:
        ValueError: If no layer is quantized, or one was never calibrated.
    """
    if not quantized_layers(model):
        raise ValueError(
            'the model has no quantized layer; expected a config with '
            'QuantBackbone, QuantNeck or QuantHead, such as '
            'configs/gor/retinanet_r18_w4_from_r101.py.'
        )
    missing = uncalibrated_layers(model)
    if missing:
        raise ValueError(
            f'{len(missing)} quantized layers were never calibrated '
            f'({", ".join(missing[:_SHOWN])}); expected the checkpoint of a '
            'quantized training of this config, got one without (all of) '
            'their ranges, or with those of other bits or another quantizer. '
            'Train first: python tools/train.py CONFIG.'
        )


def check_weights(state_dict: dict) -> None:
    """Make sure that tensors are worth deploying.

    Raises:
        ValueError: If one has NaN or infinity.
    """
    broken = non_finite_keys(state_dict)
    if broken:
        raise ValueError(
            f'{broken[0]} is not finite; expected the checkpoint of a '
            'training that did not diverge. Give an earlier one.'
        )


def freeze(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode, its quantizers frozen.

    Args:
        model (nn.Module): With calibrated quantized layers.

    Raises:
        ValueError: If no layer is quantized, one was never calibrated, or a
            weight is not finite.
    """
    check_calibrated(model)
    check_weights(model.state_dict())
    frozen = deepcopy(model).eval()
    for layer in quantized_layers(frozen).values():
        weight = FrozenWeight(layer)
        layer.input_quantizer = FrozenInput(
            layer.input_quantizer, layer.weight.dim()
        )
        layer.weight_quantizer = weight
    return frozen
