"""Turns the layers of a stock module into quantized ones, in place."""

from typing import Any

from mmcv.cnn import ConvModule
from torch import nn

from mmgor.quantization.layers.quant_layers import (
    QuantLayerMixin,
    is_quantizable,
    to_quantized,
)
from mmgor.quantization.layers.sampling import sampling_layers
from mmgor.quantization.layers.weights import weighted_layers
from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.registry import build_own

from .coverage import OVERRIDE, SAMPLING, float_reason, log_float_layers
from .policy import LayerBits, QuantPolicy


def find_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Path -> layer, for all layers that are quantized by default.

    Layers that tell a deformable convolution or attention where to sample, and
    with which weight, are left out (see :func:`sampling_layers`). A layer that
    has several paths is listed once.
    """
    sampling = sampling_layers(module)
    return {
        name: layer
        for name, layer in module.named_modules()
        if is_quantizable(layer) and name not in sampling
    }


def quantize_layers(
    module: nn.Module,
    policy: QuantPolicy,
    edge_names: set[str],
    calls: dict[str, int] | None = None,
) -> None:
    """Quantize every convolution and linear of ``module`` in place.

    Args:
        module (nn.Module): A stock backbone, neck or head.
        policy (QuantPolicy): Decides the bits.
        edge_names (set[str]): Paths of layers that get ``first_last_bits``.
        calls (dict[str, int], optional): Number of calls of a layer per
            forward pass. The layer gets as many input scales. Default: one
            call each.

    Raises:
        ValueError: If the module has no layer to quantize.
    """
    if not _in_float(module):
        raise ValueError(
            f'{type(module).__name__} has no layer to quantize; expected '
            'convolutions or linears that are not quantized yet. Use it '
            'without the Quant wrapper.'
        )
    reasons = _reasons(module)
    layers = {n: m for n, m in module.named_modules() if is_quantizable(m)}
    assigned = policy.assign(list(layers), edge_names, reasons)
    for name, bits in assigned.items():
        if bits is not None:
            slots = (calls or {}).get(name, 1)
            _quantize_layer(layers[name], name, policy, bits, slots)
            layers[name].is_edge = name in edge_names
    call_layers(module)
    for name, layer in _in_float(module).items():
        layer.float_cause = (
            OVERRIDE if policy.keeps_float(name) else reasons[name]
        )
    log_float_layers(module)


def call_layers(module: nn.Module) -> None:
    """Switch off what reads the weight of a layer without calling it.

    mmcv's ``ConvModule`` does so in evaluation mode with
    ``efficient_conv_bn_eval``, attentions of timm (Swin V2, BEiT, EVA) unless
    they add the bias of their projection separately.
    """
    for child in module.modules():
        if isinstance(child, ConvModule):
            child.turn_on_efficient_conv_bn_eval(False)
        if 'qkv_bias_separate' in vars(child):
            vars(child)['qkv_bias_separate'] = True


def _in_float(module: nn.Module) -> dict[str, Any]:
    return {
        name: layer
        for name, layer in weighted_layers(module).items()
        if not isinstance(layer, QuantLayerMixin)
    }


def _reasons(module: nn.Module) -> dict[str, str]:
    """Path -> reason, for layers that stay in float by default."""
    sampling = sampling_layers(module)
    return {
        name: SAMPLING if is_quantizable(layer) else float_reason(layer)
        for name, layer in _in_float(module).items()
        if name in sampling or not is_quantizable(layer)
    }


def _quantize_layer(
    layer: Any,
    name: str,
    policy: QuantPolicy,
    bits: LayerBits,
    slots: int,
) -> None:
    channels = getattr(layer, 'out_channels', None) or layer.out_features
    weight_cfg = dict(
        policy.weight_quantizer,
        bits=bits.w_bits,
        num_scales=channels if policy.per_channel else 1,
        per_channel=policy.per_channel,
        for_weight=True,
    )
    input_cfg = policy.input_config(bits.a_bits, slots)
    if policy.per_channel_depthwise and is_depthwise(layer):
        groups = layer.groups
        input_cfg.update(num_scales=slots * groups, channels=groups)
    form = 'dict(type=...)'
    weight_quantizer: BaseQuantizer = build_own(
        'weight_quantizer', weight_cfg, BaseQuantizer, form
    )
    input_quantizer: BaseQuantizer = build_own(
        'input_quantizer', input_cfg, BaseQuantizer, form
    )
    weight_quantizer.layer_name = f'{name}.weight'
    input_quantizer.layer_name = f'{name} (input)'
    to_quantized(layer, weight_quantizer, input_quantizer)


def is_depthwise(layer: Any) -> bool:
    """Whether ``layer`` is a convolution that does not mix channels."""
    return 1 < getattr(layer, 'groups', 1) == layer.in_channels
