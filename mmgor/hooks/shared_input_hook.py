"""Keeps one rounding for layers that read one tensor."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgor.quantization import BaseQuantizer, input_groups, share_ranges
from mmgor.registry import HOOKS

from .utils import unwrapped_model


@HOOKS.register_module()
class SharedInputHook(Hook):
    """Trains input quantizers that read one tensor as one.

    A runtime rounds a tensor once a grid, so that layers that learn grids of
    their own cost time on the device: the two branches of a CSP block, the
    downsampling of a residual block, the first layers for classes and boxes.
    After every step of the optimizer they get the mean of what they learned.
    Names and shapes in checkpoints stay as they are, and the exported file has
    one QuantizeLinear for all of them.

    Which layers these are is seen in a pass over the first training batch.
    """

    # Before EMAHook, which is to average what is shared.
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._groups: list[list[BaseQuantizer]] = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Find the groups, once.

        Raises:
            RuntimeError: If there is none.
        """
        if self._groups:
            return
        model = unwrapped_model(runner)
        was_training = model.training
        model.eval()
        groups = input_groups(model, lambda: _run(model, data_batch))
        model.train(was_training)
        if not groups:
            raise RuntimeError(
                'SharedInputHook found no quantized layers that read one '
                'tensor with as many bits; remove it from custom_hooks.'
            )
        lines = [' = '.join(group) for group in groups]
        runner.logger.info('Shared inputs\n' + '\n'.join(lines))
        self._groups = [list(group.values()) for group in groups]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Share what the step made of them."""
        for group in self._groups:
            share_ranges(group)


@torch.no_grad()
def _run(model: Any, batch: Any) -> None:
    data = model.data_preprocessor(batch, False)
    model(**data, mode='tensor')
