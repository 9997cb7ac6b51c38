"""ChannelsLastHook: trains the student in the channels-last memory layout."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmgor.registry import HOOKS

from .student import unwrapped_model


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lets the student run in the channels-last memory layout.

    Its backbone gets the images in this layout, and the layers after it keep
    it, rounding among them. Parameters stay as they are, and so do files.

    mmcv's compiled operators (deformable convolutions, RoIAlign) do not know
    the layout; some give wrong numbers. Their inputs are copied into the usual
    one.
    """

    # Before calibration and a missing evaluation.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Change the layout, until the end of the process.

        Raises:
            ValueError: If the model has no ``backbone``.
        """
        use_channels_last(unwrapped_model(runner))


def use_channels_last(model: nn.Module) -> None:
    """Let a detector run in the channels-last layout.

    Args:
        model (nn.Module): With one or several modules ``backbone``, which take
            images of shape (N, C, H, W).

    Raises:
        ValueError: If it has none.
    """
    backbones = 0
    for name, module in model.named_modules():
        if name.split('.')[-1] == 'backbone':
            backbones += 1
            _add_once(module, _channels_last)
        elif _has_fixed_layout(module):
            _add_once(module, _contiguous)
    if not backbones:
        raise ValueError(
            'ChannelsLastHook expected a model with a backbone, got '
            f'{type(model).__name__} with '
            f'{[name for name, _ in model.named_children()]}. Remove the hook.'
        )


def _add_once(module: nn.Module, hook: Callable[..., Any]) -> None:
    """The Runner may train several times."""
    if hook not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(hook, with_kwargs=True)


def _has_fixed_layout(module: nn.Module) -> bool:
    """Whether a module hands its inputs to one of mmcv's operators."""
    # TOOD's head calls such an operator as a function.
    return hasattr(module, 'deform_sampling') or any(
        base.__module__.startswith('mmcv.ops.')
        for base in type(module).__mro__
    )


def _in_layout(x: Tensor, layout: torch.memory_format) -> Tensor:
    return x.contiguous(memory_format=layout) if x.dim() == 4 else x


def _channels_last(module: nn.Module, *inputs: Any) -> Any:
    layout = torch.channels_last
    return tree_map_only(Tensor, partial(_in_layout, layout=layout), inputs)


def _contiguous(module: nn.Module, *inputs: Any) -> Any:
    return tree_map_only(Tensor, _copied, inputs)


def _copied(x: Tensor) -> Tensor:
    copy = x.contiguous()
    copy.__dict__.update(vars(x))  # such as the grid of its values
    return copy
