"""Watches the game: its parameters, its log, its curves."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmgor.registry import HOOKS

from .utils import unwrapped_model
from .weight_plot import plot_weight_curves, read_scalars

OPTIM_LINE = (
    'optim_wrapper = dict(paramwise_cfg=dict(custom_keys={{'
    "'gor_weighting.': dict({0}), '_quantizer.': dict({0})}}))"
)


@HOOKS.register_module()
class GoRWeightHook(Hook):
    """Gives the thetas their learning rate, logs and checks the weights.

    The detector puts effective weights, thetas, raw and weighted losses
    under ``gor_*`` into its outputs, from where mmengine writes them to the
    console line, ``scalars.json`` and TensorBoard. This hook

    - checks that GoR's parameters are in the optimizer, in a group of their
      own, without weight decay;
    - holds their learning rate at ``theta_lr``, untouched by warm-up and
      decay, switches momentum off for them (see :func:`settle_group`), and
      gives the optimizer their gradient before clipping: the game then
      arrives within a few per cent of the run with any optimizer;
    - compares the student's class list with each teacher's;
    - measures, every ``gradient_interval`` iterations, the norm ratio and
      the cosine of the two weighted gradients at the detector's
      ``gradient_tap`` (costs two backward passes through the head);
    - warns when a weight collapses or a value is not finite;
    - draws ``gor_weights.png`` at the end of training.

    Args:
        theta_lr (float, optional): Default: 60 / max_iters, in [0.02, 0.3].
        gradient_interval (int): 0 measures nothing.
        collapse (float): Warn when the smaller weight's share of the sum is
            below this.

    Raises:
        ValueError: If an argument is out of range.
    """

    priority = 'LOW'

    def __init__(
        self,
        theta_lr: float | None = None,
        gradient_interval: int = 0,
        collapse: float = 1e-3,
    ) -> None:
        if theta_lr is not None and not theta_lr > 0:
            raise ValueError(f'theta_lr must be positive, got {theta_lr}.')
        if gradient_interval < 0 or not 0 < collapse < 0.5:
            raise ValueError(
                'expected gradient_interval >= 0 and 0 < collapse < 0.5, got '
                f'{gradient_interval} and {collapse}.'
            )
        self.theta_lr = theta_lr
        self.gradient_interval = gradient_interval
        self.collapse = collapse
        self._groups: list[dict] = []
        self._warned = False

    def before_train(self, runner: Runner) -> None:
        """Check parameters and classes, prepare the thetas' rate.

        Raises:
            RuntimeError: If the model has no weighting, or the optimizer
                does not hold its parameters as it should.
            ValueError: If a teacher has other classes than the student.
        """
        model = unwrapped_model(runner)
        if not hasattr(model, 'gor_weighting'):
            raise RuntimeError(
                "GoRWeightHook expected a model of type 'GoRDetector' with a "
                f'gor_weighting, got {type(model).__name__}. Set model=dict('
                "type='GoRDetector', detector=<stock type>, ...) or remove "
                'the hook.'
            )
        check_classes(runner, model)
        thetas = dict(model.gor_weighting.named_parameters())
        if thetas:
            optimizer = runner.optim_wrapper.optimizer
            self._groups = list(theta_groups(optimizer, thetas))
            if self.theta_lr is None:
                self.theta_lr = min(0.3, max(0.02, 60 / runner.max_iters))
            for group in self._groups:
                settle_group(group)
            optimizer.register_step_pre_hook(_unclipped(model))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        for group in self._groups:
            group['lr'] = self.theta_lr
        interval = self.gradient_interval
        if interval and runner.iter % interval == 0:
            unwrapped_model(runner).gor_weighting.measure_gradients = True

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        outputs = outputs or {}
        if 'gor_w_task' not in outputs or self._warned:
            return
        weights = torch.stack([outputs['gor_w_task'], outputs['gor_w_kd']])
        share = float(weights.min() / weights.sum())
        if share < self.collapse or share != share:
            self._warned = True
            runner.logger.warning(
                f'GoR weights at iteration {runner.iter + 1}: task '
                f'{float(weights[0]):.3g}, distillation '
                f'{float(weights[1]):.3g}. The smaller has less than '
                f'{self.collapse:g} of the sum: the losses differ by orders '
                'of magnitude or one is not finite (said once).'
            )

    def after_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
        if not scalars.is_file():
            runner.logger.log(
                logging.WARNING,
                f'no {scalars}: weight curves not drawn; '
                'expected visualizer.vis_backends=[dict(type='
                "'LocalVisBackend')].",
            )
            return
        path = plot_weight_curves(
            read_scalars(scalars), Path(runner.work_dir) / 'gor_weights.png'
        )
        runner.logger.info(f'Weight curves: {path}')


def settle_group(group: dict) -> None:
    """Let an optimizer's step on the thetas be proportional to its gradient.

    The game's gradient is bounded by 1 and shrinks to 0 at the resting
    point. Momentum would overshoot it, and Adam's division by the root mean
    square would turn what is left into steps of full size: so no momentum,
    and an ``eps`` of the gradient's own bound.

    Args:
        group (dict): The optimizer's parameter group of the thetas.
    """
    if 'momentum' in group:
        group.update(momentum=0.0, nesterov=False)
    if 'betas' in group:
        group['betas'] = (0.0, *group['betas'][1:])
    if 'eps' in group:
        group['eps'] = 1.0


def theta_groups(
    optimizer: torch.optim.Optimizer, thetas: dict[str, nn.Parameter]
) -> Iterator[dict]:
    """The optimizer's groups that hold the thetas and nothing else.

    Raises:
        RuntimeError: If a theta is in no group, shares its group with other
            parameters, or has weight decay; with the line to paste.
    """
    ids = {id(p) for p in thetas.values()}
    found: set[int] = set()
    for group in optimizer.param_groups:
        inside = {id(p) for p in group['params']}
        if not inside & ids:
            continue
        found |= inside & ids
        if inside - ids or group.get('weight_decay', 0):
            raise RuntimeError(
                "expected GoR's thetas in a parameter group of their own "
                'without weight decay, got a group of '
                f'{len(group["params"])} parameter(s) with weight_decay='
                f'{group.get("weight_decay", 0)}. Add to the config:\n'
                f'{_line_to_paste(optimizer)}'
            )
        yield group
    if found != ids:
        raise RuntimeError(
            f'expected {sorted(thetas)} of gor_weighting in the optimizer, '
            f'but {len(ids - found)} of them are missing. Remove them from '
            "any custom optimizer constructor's exclusions, or add to the "
            f'config:\n{_line_to_paste(optimizer)}'
        )


def _line_to_paste(optimizer: torch.optim.Optimizer) -> str:
    # mmengine refuses decay_mult where the optimizer has no weight decay.
    decays = bool(optimizer.defaults.get('weight_decay'))
    return OPTIM_LINE.format('decay_mult=0.0' if decays else 'lr_mult=1.0')


def check_classes(runner: Runner, model: Any) -> None:
    """Compare class lists of the training data and of each teacher.

    Raises:
        ValueError: If they differ, listing both.
    """
    dataset = runner.train_dataloader.dataset
    student = getattr(dataset, 'metainfo', {}).get('classes')
    for name, teacher in model.teachers.items():
        if student is None or teacher.classes is None:
            runner.logger.warning(
                f'class names of teacher {name!r} or of the training data '
                'are unknown; only their number was compared.'
            )
        elif tuple(student) != tuple(teacher.classes):
            raise ValueError(
                f'teacher {name!r} has classes {tuple(teacher.classes)}, the '
                f"student's data {tuple(student)}; expected the same list "
                'in the same order. Train the teacher on these classes or '
                'set train_dataloader.dataset.metainfo=dict(classes=...).'
            )


def _unclipped(model: Any) -> Any:
    """A step hook that undoes gradient clipping for the thetas.

    Clipping scales all gradients by the norm of the student's, which would
    slow the game down by a factor that has nothing to do with it.
    """

    def restore(*_: Any) -> None:
        weighting = model.gor_weighting
        gradient = getattr(weighting, 'theta_gradient', None)
        if gradient is None or model.nonfinite:
            return
        for theta, value in zip(weighting.parameters(), gradient):
            if theta.grad is not None:
                theta.grad.copy_(value)

    return restore
