"""Replaces the quantizers of a trained network by their integers."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mmgor.io.checkpoint import non_finite_keys
from mmgor.listing import listed
from mmgor.quantization import (
    BaseQuantizer,
    GivenQuantizer,
    quantized_layers,
    tensor_quantizers,
    uncalibrated_layers,
)
from mmgor.quantization.layers.quant_layers import QuantLayerMixin
from mmgor.quantization.quantizers.marks import is_marked

from .onnx_ops import dequantize, quantize_dequantize

# Axes of a feature map. With one scale per tensor they do not matter.
_MAP_AXES = 4


class FrozenInput(nn.Module):
    """An input quantizer that rounds as QuantizeLinear and DequantizeLinear.

    A layer that a forward pass calls several times has one grid per call.

    Args:
        quantizer (BaseQuantizer): Calibrated input quantizer.
        dims (int): Number of axes of the input.
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

    def forward(self, x: Tensor, slot: int | None = None) -> Tensor:
        if is_marked(x, self, slot):  # another reader has rounded it
            return x
        if slot is None:
            slot = self._slot
            self._slot = (slot + 1) % len(self.ranges)
        scale = self.get_buffer(f'scale_{slot}')
        zero_point = self.get_buffer(f'zero_point_{slot}')
        if not self.shifted[slot]:
            return quantize_dequantize(
                x, scale, zero_point, *self.ranges[slot], 1
            )
        # With a trained offset, zero may lie so far outside the range that
        # int8 or uint8 can't hold the zero point.
        shift = self.get_buffer(f'shift_{slot}')
        moved = quantize_dequantize(
            x + shift, scale, zero_point, *self.ranges[slot], 1
        )
        return moved - shift


class Unrounded(nn.Module):
    """Stands where nothing is rounded, in place of a :class:`FrozenInput`."""

    def forward(self, x: Tensor, slot: int | None = None) -> Tensor:
        return x


class FrozenWeight(nn.Module):
    """A weight quantizer that gives the weight from its integers.

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
    """Make sure that every quantized layer of a model is calibrated.

    Raises:
        ValueError: If there is no quantized layer, or one was never
            calibrated.
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
            f'({listed(missing)}); expected a checkpoint of '
            'quantization-aware training with this config, got one that lacks '
            'ranges, or has those of other bits or of another quantizer. '
            'Train first: python tools/train.py CONFIG.'
        )


def check_weights(state_dict: dict) -> None:
    """Make sure that all weights are finite.

    Raises:
        ValueError: If one has NaN or infinity.
    """
    broken = non_finite_keys(state_dict)
    if broken:
        raise ValueError(
            f'{broken[0]} is not finite; expected a checkpoint of a training '
            'that did not diverge. Give an earlier one.'
        )


def freeze(model: nn.Module) -> nn.Module:
    """Copy a model and replace its quantizers by their integers.

    Args:
        model (nn.Module): With calibrated quantized layers.

    Returns:
        nn.Module: The copy, in evaluation mode.

    Raises:
        ValueError: If there is no quantized layer, one was never calibrated,
            or a weight is not finite.
    """
    check_calibrated(model)
    check_weights(model.state_dict())
    frozen = deepcopy(model).eval()
    inputs: dict[int, nn.Module] = {}
    for layer in quantized_layers(frozen).values():
        quantizer, weight = layer.input_quantizer, FrozenWeight(layer)
        if id(quantizer) not in inputs:
            inputs[id(quantizer)] = _freeze_input(
                quantizer, layer.weight.dim()
            )
        # Here a shared quantizer is a child of all layers that read with it.
        layer.__dict__.pop('input_quantizer', None)
        layer.input_quantizer = inputs[id(quantizer)]
        layer.weight_quantizer = weight
    for name, quantizer in tensor_quantizers(frozen).items():
        frozen.set_submodule(name, _freeze_input(quantizer, _MAP_AXES))
    return frozen


def _freeze_input(quantizer: BaseQuantizer, dims: int) -> nn.Module:
    if isinstance(quantizer, GivenQuantizer):
        return Unrounded()
    return FrozenInput(quantizer, dims)
