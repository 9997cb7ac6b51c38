"""Skips updates whose loss is not finite, and stops when they persist."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgor.registry import HOOKS

from .utils import unwrapped_model


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Drops the gradients of a step that ``GoRDetector`` found non-finite.

    The detector then returns zero losses, so that every rank finishes its
    reduction; this hook takes the gradients away right before the optimizer
    steps, so that neither momentum nor weight decay moves a weight.

    Args:
        max_consecutive (int): Stop after this many such steps in a row.

    Raises:
        ValueError: If ``max_consecutive`` is less than 1.
    """

    def __init__(self, max_consecutive: int = 10) -> None:
        if max_consecutive < 1:
            raise ValueError(
                f'max_consecutive must be at least 1, got {max_consecutive}.'
            )
        self.max_consecutive = max_consecutive
        self.consecutive = 0

    def before_train(self, runner: Runner) -> None:
        model = unwrapped_model(runner)

        def drop_gradients(optimizer: Any, *_: Any) -> None:
            if getattr(model, 'nonfinite', False):
                optimizer.zero_grad(set_to_none=True)

        runner.optim_wrapper.optimizer.register_step_pre_hook(drop_gradients)

    def after_train_iter(
        self, runner: Runner, *args: Any, **kwargs: Any
    ) -> None:
        """Count.

        Raises:
            RuntimeError: After ``max_consecutive`` skipped updates in a row.
        """
        model = unwrapped_model(runner)
        skipped = getattr(model, 'nonfinite', False)
        self.consecutive = self.consecutive + 1 if skipped else 0
        if self.consecutive >= self.max_consecutive:
            raise RuntimeError(
                f'the loss was not finite in {self.consecutive} updates in a '
                f'row (last at iteration {runner.iter + 1}); training stops. '
                'Expected finite losses: lower optim_wrapper.optimizer.lr, '
                'add clip_grad=dict(max_norm=10), or use more bits.'
            )
