"""ChannelsLastHook: trains the student in the channels-last memory layout."""

from typing import Any

import torch
from mmcv.cnn import ConvAWS2d, ConvWS2d
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmgor.registry import HOOKS

from .student import unwrapped_model

# They view a weight as rows.
_CONTIGUOUS_WEIGHT = (ConvWS2d, ConvAWS2d)


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lays out the weights of convolutions channels-last for the training.

    A convolution with such a weight gives maps in this layout, which the
    layers after it keep, rounding among them. Checkpoints have the same keys
    and shapes, and are used with and without this hook.

    mmcv's compiled operators (deformable convolutions, RoIAlign) do not know
    the layout; some give wrong numbers. They stay as they are, and their
    inputs are copied into the usual layout.
    """

    # Before calibration and a missing evaluation; a training that is resumed
    # has its weights by then.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Change the layout of the student, and of its average (EMA)."""
        model = unwrapped_model(runner)
        count = to_channels_last(model)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                to_channels_last(hook.ema_model)
        runner.logger.info(
            f'{count} convolutions of the student run channels-last.'
        )


def to_channels_last(model: nn.Module) -> int:
    """Lay out the weights of a model's convolutions channels-last, in place.

    Args:
        model (nn.Module): Its parameters stay the same objects.

    Returns:
        int: How many convolutions have the layout.
    """
    count = 0
    fixed = _inside_of_fixed(model)
    for module in model.modules():
        known = module._forward_pre_hooks.values()
        if _has_fixed_layout(module) and _contiguous not in known:
            module.register_forward_pre_hook(_contiguous, with_kwargs=True)
        weight: Any = module._parameters.get('weight')
        plain = isinstance(module, nn.Conv2d) and weight is not None
        if not plain or module in fixed:
            continue
        if not isinstance(module, _CONTIGUOUS_WEIGHT):
            layout = torch.channels_last
            weight.data = weight.data.contiguous(memory_format=layout)
            count += 1
    return count


def _inside_of_fixed(model: nn.Module) -> set[nn.Module]:
    """They may make an operator's arguments, such as offsets."""
    return {
        part
        for module in model.modules()
        if _has_fixed_layout(module)
        for part in module.modules()
    }


def _has_fixed_layout(module: nn.Module) -> bool:
    """Whether a module hands its inputs to one of mmcv's operators."""
    # TOOD's head calls such an operator as a function.
    return hasattr(module, 'deform_sampling') or any(
        base.__module__.startswith('mmcv.ops.')
        for base in type(module).__mro__
    )


def _contiguous(module: nn.Module, *inputs: Any) -> Any:
    return tree_map_only(Tensor, Tensor.contiguous, inputs)
