"""SharedInputHook: layers that read the same tensor round it the same way."""

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
    """Gives input quantizers that read the same tensor the same range.

    A runtime rounds a tensor once per grid. Layers that read one tensor but
    train a grid each therefore cost time on the device: the two branches of a
    CSP block, the downsampling of a residual block, the first layers for
    classes and boxes. After every iteration this hook gives them the mean of
    their ranges. Names and shapes in checkpoints do not change, and the
    exported file has one QuantizeLinear for all of these layers.

    The groups are found in a forward pass over the first training batch:
    layers that are trained, have the same number of bits and read the same
    tensors in every call. Use the hook from the start of training. If EMAHook
    resumes its copy from a run without this hook, the copy reaches the shared
    values only as its average moves.
    """

    # This hook runs before EMAHook, which then averages the shared ranges.
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._groups: list[list[BaseQuantizer]] = []

    def before_train(self, runner: Runner) -> None:
        """Forget the groups of an earlier training."""
        self._groups = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Find the groups and share their ranges, once per training.

        Raises:
            RuntimeError: If there is no group.
        """
        if self._groups:
            return
        model = unwrapped_model(runner)
        found = [input_groups(model, lambda: run_forward(model, data_batch))]
        # If ranks shared different layers, they would silently diverge.
        dist.broadcast_object_list(found)
        names = found[0]
        if not names:
            raise RuntimeError(
                'SharedInputHook found no quantized layers that read the '
                'same tensor: expected at least two, with the same number of '
                'bits. Remove the hook from custom_hooks.'
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
        """Share the ranges that this iteration changed."""
        share_ranges(self._groups)
