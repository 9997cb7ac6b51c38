"""Keeps one rounding for layers that read one tensor."""

from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgor.quantization import (
    BaseQuantizer,
    input_groups,
    quantized_layers,
    share_ranges,
)
from mmgor.registry import HOOKS

from .student import run_forward, unwrapped_model


@HOOKS.register_module()
class SharedInputHook(Hook):
    """Trains input quantizers that read one tensor as one.

    A runtime rounds a tensor once a grid, so that layers that learn grids of
    their own cost time on the device: the two branches of a CSP block, the
    downsampling of a residual block, the first layers for classes and boxes.
    After every iteration they get the mean of what they learned. Names and
    shapes in checkpoints stay as they are, and the exported file has one
    QuantizeLinear for all of them.

    Which layers these are is seen in a pass over the first training batch:
    those that read the same tensors in every call, with as many bits, and are
    trained. Train with the hook from the start: a copy that EMAHook resumes
    from a run without it comes to shared values only as its average moves.
    """

    # Before EMAHook, which is to average what is shared.
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._groups: list[list[BaseQuantizer]] = []

    def before_train(self, runner: Runner) -> None:
        """Forget the groups of an earlier training."""
        self._groups = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Find the groups and share what they have, once.

        Raises:
            RuntimeError: If there is none.
        """
        if self._groups:
            return
        model = unwrapped_model(runner)
        found = [input_groups(model, lambda: run_forward(model, data_batch))]
        # Ranks that shared other layers would part without a word.
        dist.broadcast_object_list(found)
        names = found[0]
        if not names:
            raise RuntimeError(
                'SharedInputHook found no quantized layers that read one '
                'tensor with as many bits; remove it from custom_hooks.'
            )
        lines = [' = '.join(group) for group in names]
        runner.logger.info('Shared inputs\n' + '\n'.join(lines))
        layers = quantized_layers(model)
        self._groups = [
            [layers[name].input_quantizer for name in group] for group in names
        ]
        share_ranges(self._groups)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Share what the iteration made of them."""
        share_ranges(self._groups)
