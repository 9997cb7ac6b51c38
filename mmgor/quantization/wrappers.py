"""``QuantBackbone``, ``QuantNeck`` and ``QuantHead``, the config wrappers.

They are registered functions, not modules. ``MODELS.build`` returns the stock
backbone, neck or head itself, with its layers turned into quantized ones. All
keys of a float checkpoint therefore match, and mmdet sees no difference.
"""

from typing import Any

from torch import nn

from mmgor.io.checkpoint import check_any_match, check_sound
from mmgor.quantization.layers.quant_layers import QuantLayerMixin
from mmgor.quantization.quantizers.base import MAX_BITS, BaseQuantizer
from mmgor.quantization.quantizers.recomputation import is_recomputed
from mmgor.quantization.roles.probe_inputs import (
    head_inputs,
    image_inputs,
    neck_inputs,
)
from mmgor.quantization.roles.roles import first_layers, head_roles
from mmgor.quantization.tensors.prepare import round_tensors
from mmgor.registry import MODELS, build_stock

from .convert import find_layers, quantize_layers
from .policy import QuantPolicy


@MODELS.register_module()
def QuantBackbone(
    backbone: str, quant: dict | None = None, **kwargs: Any
) -> nn.Module:
    """A stock backbone with quantized layers, the first of them at 8 bits.

    The first layer is the one that the image reaches first. If the image goes
    into several branches, each branch has its own first layer. With 8 bits,
    the grid of the image is not trained after calibration.

    Args:
        backbone (str): Registered type, e.g. 'ResNet'.
        quant (dict, optional): See :class:`QuantPolicy`.
        **kwargs: The stock backbone's own arguments.

    Returns:
        nn.Module: The stock backbone, its layers quantized in place.

    Example:
        >>> backbone = dict(type='QuantBackbone', backbone='ResNet', depth=18,
        ...                 quant=dict(w_bits=4, a_bits=4))
    """
    policy = QuantPolicy.from_config(quant)
    module = build_stock('backbone', backbone, kwargs)
    first = first_layers(module)
    quantize_layers(module, policy, first)
    if policy.tensors == 'all':
        round_tensors(module, policy, image_inputs(module), given=False)
    _keep_grid_of_images(module, first)
    module.register_load_state_dict_pre_hook(_check_match)
    return _guarded(module)


@MODELS.register_module()
def QuantNeck(
    neck: str, quant: dict | None = None, **kwargs: Any
) -> nn.Module:
    """A stock neck with quantized layers.

    Args:
        neck (str): Registered type, e.g. 'FPN'.
        quant (dict, optional): See :class:`QuantPolicy`.
        **kwargs: The stock neck's own arguments.

    Returns:
        nn.Module: The stock neck, its layers quantized in place.
    """
    policy = QuantPolicy.from_config(quant)
    module = build_stock('neck', neck, kwargs)
    inputs = neck_inputs(module, kwargs) if find_layers(module) else []
    quantize_layers(module, policy, set())
    if policy.tensors == 'all':
        round_tensors(module, policy, inputs)
    return _guarded(module)


@MODELS.register_module()
def QuantHead(
    head: str, quant: dict | None = None, **kwargs: Any
) -> nn.Module:
    """A stock head with quantized layers, its prediction layers at 8 bits.

    A layer that the head shares across pyramid levels gets one input scale
    per level.

    Args:
        head (str): Registered type, e.g. 'RetinaHead'.
        quant (dict, optional): See :class:`QuantPolicy`.
        **kwargs: The stock head's own arguments.

    Returns:
        nn.Module: The stock head, its layers quantized in place.

    Raises:
        ValueError: If no prediction layer is found (from the head's outputs
            for an input of zeros, or by name if the head can't be run), or if
            there is no layer to quantize.
    """
    policy = QuantPolicy.from_config(quant)
    module = build_stock('head', head, kwargs)
    names = list(find_layers(module))
    roles = head_roles(module, kwargs)
    if names and not roles.predictions and not policy.overrides:
        raise ValueError(
            f'no prediction layer found in {head}, so that none would get '
            f'first_last_bits; its layers are {names}. Name them: '
            'quant=dict(overrides={"<layer>": dict(w_bits=8, a_bits=8)}).'
        )
    inputs = head_inputs(module, kwargs) if names else []
    quantize_layers(module, policy, roles.predictions, roles.calls)
    if policy.tensors == 'all':
        round_tensors(module, policy, inputs, roles.predictions)
    for path in roles.passes:
        part = module.get_submodule(path)
        part.register_forward_pre_hook(_start_pass)
        part.register_forward_hook(_end_pass, always_call=True)
    return _guarded(module)


def _keep_grid_of_images(backbone: nn.Module, first: set[str]) -> None:
    """Do not train the step size of the images.

    Its gradient needs that of the images, for which no other parameter asks:
    a backward pass through the largest maps (docs/results/step_time.md).
    Calibration fits the 8 bits of an image as it is. A backbone that has
    other trained weights in front, such as a norm, keeps all its gradients.
    """
    front = next(
        (
            name
            for name, module in backbone.named_modules()
            if name and any(True for _ in module.parameters(recurse=False))
        ),
        None,
    )
    if front not in first:
        return
    for name in first:
        quantizer = getattr(
            backbone.get_submodule(name), 'input_quantizer', None
        )
        if quantizer is not None and quantizer.bits == MAX_BITS:
            quantizer.fix_range()


def _start_pass(head: nn.Module, _: Any) -> None:
    """Start at the first level, even if the last forward pass failed."""
    if is_recomputed():  # inside a checkpoint, no new pass starts
        return
    for module in head.modules():
        if isinstance(module, BaseQuantizer):
            module.reset_slot()
        elif isinstance(module, QuantLayerMixin):
            module.start_pass()


def _end_pass(head: nn.Module, *_: Any) -> None:
    for module in head.modules():
        if isinstance(module, QuantLayerMixin):
            module.end_pass()


def _check_match(
    backbone: nn.Module, state_dict: dict, prefix: str, *_: Any
) -> None:
    """Raise, and not only warn, if a loaded file matches no key."""
    check_any_match(backbone, state_dict, prefix, 'backbone')


def _guarded(module: nn.Module) -> nn.Module:
    """Refuse NaN in all files that the module loads. The Runner's hooks do
    not see those of an ``init_cfg``."""
    module.register_load_state_dict_pre_hook(_check_sound)
    return module


def _check_sound(
    module: nn.Module, state_dict: dict, prefix: str, *_: Any
) -> None:
    own = {prefix + key: value for key, value in module.state_dict().items()}
    mine = {k: v for k, v in state_dict.items() if k.startswith(prefix)}
    check_sound(own, mine, 'checkpoint')
