"""NonFiniteLossHook: skips steps that are not finite, or stops the run."""

import math
from contextlib import ExitStack
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgor.datasets.batch_images import name_images
from mmgor.io.config_values import integer
from mmgor.registry import HOOKS

from .broken_state import broken_teachers, broken_tensors, check_state
from .student import unwrapped_model

#: Iterations between two checks of all parameters and buffers.
CHECK_INTERVAL = 50
#: Steps in a row that a loss scaler may skip: half precision has 40 powers of
#: two, and the scale is halved each time.
MOST_SKIPPED = 40


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Undoes steps with a loss or gradient that is not finite.

    It works with any detector. Right before the optimizer steps, the gradients
    are removed, so neither momentum nor weight decay moves a weight. Buffers
    (batch-norm statistics, ranges, running means) and the thetas, which the
    optimizer does not move, get back the values of the last good step. A
    loss that is not finite on one rank makes the reduced gradients of all
    ranks non-finite, so all ranks skip the step together, and all say so.

    A tensor may be broken while the loss is finite: NaN in an average of batch
    norm, or an absurd step size. Such a tensor stops the training with its
    name. All tensors are checked when training starts, every 50 iterations, at
    the end of an epoch and before a checkpoint is saved.

    Only the host can decide whether the optimizer steps. It therefore waits
    for the device once per iteration, for the gradients. It waits a second
    time for all logged values together: the hooks that come later find them
    on the host, and need not wait for each. A check of all tensors makes it
    wait once more.

    The loss scaler of half precision skips steps by itself, while it looks for
    a scale at which no gradient overflows. The log says so. If it finds none,
    the training stops, since nothing would be trained any more.

    Args:
        max_consecutive (int): Stop the run after this many such steps in a
            row.

    Raises:
        ValueError: If ``max_consecutive`` is less than 1.
    """

    # This hook has to run before EMAHook averages the buffers of a bad step,
    # and before RuntimeInfoHook ('VERY_HIGH') reads the logged values.
    priority = 'HIGHEST'

    def __init__(self, max_consecutive: int = 10) -> None:
        self.max_consecutive = integer('max_consecutive', max_consecutive, 1)
        self._registered = ExitStack()
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget an earlier training, which an error may have ended."""
        self._registered.close()
        self.consecutive = 0
        self._skipped = 0  # by a loss scaler
        # Whether this iteration's optimizer step was skipped; None: there was
        # no step.
        self._dropped: bool | None = None
        self._places: list[tuple[nn.Module, str]] = []
        self._saved: list[Tensor] = []

    def before_train(self, runner: Runner) -> None:
        """Check each step of the optimizer until training ends."""
        self._start_anew()
        wrapper = runner.optim_wrapper
        check = torch.compiler.disable(self._check)  # it may compile the step
        handle = wrapper.optimizer.register_step_pre_hook(check)
        self._registered.callback(handle.remove)
        scale_loss = wrapper.scale_loss

        def scale_checked_loss(loss: Tensor) -> Tensor:
            return scale_loss(pass_non_finite_on(loss))

        wrapper.scale_loss = scale_checked_loss
        self._registered.callback(setattr, wrapper, 'scale_loss', scale_loss)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer as it was."""
        self._registered.close()

    def before_train_iter(
        self, runner: Runner, *args: Any, **kwargs: Any
    ) -> None:
        if not self._saved:  # not earlier, since calibration fills buffers
            model = unwrapped_model(runner)
            check_state(model)
            self._places = _places(model)
            self._saved = [x.detach().clone() for x in self._state()]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Undo a bad step and count it.

        Raises:
            RuntimeError: After ``max_consecutive`` skipped steps in a row,
                or if a loss scaler can no longer find a scale.
        """
        outputs = {} if outputs is None else outputs
        bring_to_host(outputs)
        bad, self._dropped = self._dropped, None
        stepped = bad is not None
        if bad is None:
            # A loss scaler may have skipped the step, or gradients are still
            # being accumulated.
            bad = _on_any_rank(_not_finite(outputs.get('loss')))
        if not bad:
            self.consecutive = 0
            self._watch_scaler(runner, stepped)
            _copy(self._state(), self._saved)
            if self.every_n_train_iters(runner, CHECK_INTERVAL):
                _check_all(runner)
            return
        self.consecutive += 1
        _copy(self._saved, self._state())
        weighting = getattr(unwrapped_model(runner), 'gor_weighting', None)
        take_gradient = getattr(weighting, 'take_gradient', None)
        if take_gradient is not None:
            take_gradient()  # so that the next step does not take it
        names = [
            k for k, v in outputs.items() if 'loss' in k and _not_finite(v)
        ]
        runner.logger.warning(
            f'iteration {runner.iter + 1}: non-finite '
            f'{names or "gradient (or loss of another rank)"}'
            f'{name_images(data_batch)}; this step is skipped.'
        )
        if self.consecutive >= self.max_consecutive:
            model = unwrapped_model(runner)
            broken = [*broken_tensors(model), *broken_teachers(model)]
            hint = (
                f'These tensors are broken: {"; ".join(broken[:3])} '
                f'({len(broken)} in all). Check load_from, or resume from an '
                'earlier checkpoint.'
                if broken
                else 'Expected finite losses: lower '
                'optim_wrapper.optimizer.lr, add clip_grad=dict(max_norm=10), '
                'or use more bits.'
            )
            raise RuntimeError(
                f'the loss was not finite in {self.consecutive} steps in a '
                f'row (the last at iteration {runner.iter + 1}: '
                f'{names or "its gradient"}); training stops. {hint}'
            )

    def _watch_scaler(self, runner: Runner, stepped: bool) -> None:
        """Say that a loss scaler skipped a step whose loss is finite.

        Args:
            runner (Runner): After an iteration.
            stepped (bool): Whether the optimizer made its step.

        Raises:
            RuntimeError: If the scaler can no longer find a scale.
        """
        if stepped:
            self._skipped = 0
            return
        wrapper = runner.optim_wrapper
        scaler = getattr(wrapper, 'loss_scaler', None)
        if scaler is None or not wrapper.should_update():
            return
        self._skipped += 1
        scale = scaler.get_scale()
        runner.logger.info(
            f'iteration {runner.iter + 1}: the loss scaler skipped this step, '
            f'since a gradient was not finite; its scale is now {scale:g}.'
        )
        if self._skipped >= MOST_SKIPPED or not math.isfinite(scale):
            raise RuntimeError(
                f'the loss scaler skipped {self._skipped} steps in a row (the '
                f'last at iteration {runner.iter + 1}) while the loss was '
                f'finite, and its scale is {scale:g}; expected that it finds '
                'a scale within a few steps. Nothing is trained any more. Set '
                "optim_wrapper.loss_scale='dynamic' and resume from an "
                'earlier checkpoint, or train with optim_wrapper='
                "dict(type='Bfloat16OptimWrapper', ...), which scales nothing."
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to save a broken model.

        Raises:
            RuntimeError: If a parameter or buffer is broken.
        """
        _check_all(runner)

    def after_train_epoch(self, runner: Runner, *_: Any) -> None:
        """Check all tensors, even if no checkpoint is saved.

        Raises:
            RuntimeError: If a parameter or buffer is broken.
        """
        _check_all(runner)

    def _check(self, optimizer: Any, *_: Any) -> None:
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group['params']
            if p.grad is not None
        ]
        if not gradients:
            return
        # A gradient's largest magnitude is inf or nan if any of its values is.
        norms = torch._foreach_norm(gradients, float('inf'))
        self._dropped = _on_any_rank(_not_finite(torch.stack(norms)))
        if self._dropped:
            optimizer.zero_grad(set_to_none=True)

    def _state(self) -> list[Tensor]:
        """The tensors that an undone step puts back.

        They are looked up each time: a module that was moved to a device, or
        that updates a mean by assignment, holds other tensors than before.
        """
        return [getattr(module, name) for module, name in self._places]


def _check_all(runner: Runner) -> None:
    check_state(unwrapped_model(runner), runner.optim_wrapper.optimizer)


def pass_non_finite_on(loss: Tensor) -> Tensor:
    """Make the gradients non-finite wherever the loss is.

    An infinite loss may have finite gradients: the L1 distance to a box at
    infinity has a gradient of 1. A finite loss is not changed.

    Args:
        loss (Tensor): Any shape.
    """
    return loss * (1 + 0 * loss.detach())


@torch.no_grad()
def bring_to_host(outputs: dict[str, Any]) -> None:
    """Replace tensors of one value by copies on the host, all at once.

    Args:
        outputs (dict[str, Any]): Logged values, changed in place. They become
            float32.
    """
    away = {
        key: value
        for key, value in outputs.items()
        if isinstance(value, Tensor)
        and value.numel() == 1
        and value.device.type != 'cpu'
    }
    if away:
        values = [value.float().reshape(()) for value in away.values()]
        outputs.update(zip(away, torch.stack(values).cpu()))


def _places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Module and name of each buffer and theta.

    A step may change them, but not through the optimizer.
    """
    thetas = getattr(model, 'gor_weighting', nn.Module())
    return [
        (module, name)
        for module in model.modules()
        for name, _ in module.named_buffers(recurse=False)
    ] + [
        (module, name)
        for module in thetas.modules()
        for name, _ in module.named_parameters(recurse=False)
    ]


@torch.no_grad()
def _copy(sources: list[Tensor], destinations: list[Tensor]) -> None:
    """Copy all tensors of a dtype at once: one by one would take hundreds of
    kernels."""
    groups: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
    for pair in zip(destinations, sources):
        groups.setdefault(pair[0].dtype, []).append(pair)
    for pairs in groups.values():
        to, what = zip(*pairs)
        torch._foreach_copy_(to, what)


def _on_any_rank(bad: Tensor) -> bool:
    """Whether ``bad``, a bool of shape (), is true on any rank. The host
    waits for the device."""
    worst = bad.int()
    dist.all_reduce(worst, 'max')
    return bool(worst)


def _not_finite(value: Any) -> Tensor:
    """Whether a logged value is not finite, a bool of shape ()."""
    if not isinstance(value, Tensor):
        return torch.tensor(False)
    return ~torch.isfinite(value).all()
