"""The base class of all balancers: it weighs the losses of one step."""

import logging
from collections.abc import Sequence

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor, nn

from .gradients import GradientStats, measure_gradients

Losses = dict[str, Tensor | list[Tensor]]


def total_loss(losses: Losses) -> Tensor:
    """Sum the losses as mmengine's ``parse_losses`` does.

    Args:
        losses (dict): Name -> tensor, or list of tensors (one per level).
            Names without 'loss' (``acc``) are left out.

    Returns:
        Tensor: Scalar.

    Raises:
        ValueError: If no entry has 'loss' in its name.
    """
    terms: list[Tensor] = []
    for name, value in losses.items():
        if 'loss' in name:
            parts = [value] if isinstance(value, Tensor) else value
            terms += [part.mean() for part in parts]
    if not terms:
        raise ValueError(
            f'expected a loss to weigh, got the keys {list(losses)}; the name '
            "of a loss contains 'loss'."
        )
    return torch.stack(terms).sum()


class BaseWeighting(nn.Module):
    """Weighs the task losses against the distillation losses.

    A subclass implements :meth:`weigh`.

    Attributes:
        measure_gradients (bool): Set it to measure the gradients at the
            shared features in the next call, for the log only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.measure_gradients = False
        self._warned = False

    def needs_gradients(self) -> bool:
        """Whether :meth:`weigh` needs the gradients in this call."""
        return False

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, Tensor | None]:
        """Choose the weights of this step.

        Args:
            losses (Tensor): Task and distillation loss, the mean over all
                ranks, detached, shape (2, ).
            gradients (GradientStats, optional): Norms and cosine of the two
                gradients at the shared features; None unless
                :meth:`needs_gradients` is true.

        Returns:
            tuple[Tensor, Tensor | None]: The weights, detached, shape (2, ),
            and the scalar ``loss_gor`` that trains the thetas, if there are
            any.
        """
        raise NotImplementedError

    def diagnostics(self) -> dict[str, Tensor]:
        """More values to log; their names must not contain 'loss'."""
        return {}

    def forward(
        self,
        task_losses: Losses,
        kd_losses: Losses,
        shared: Sequence[Tensor] = (),
    ) -> dict:
        """Weigh the losses of one step.

        Args:
            task_losses (dict): The stock detector's losses.
            kd_losses (dict): ``loss_kd_<name>`` -> scalar.
            shared (Sequence[Tensor]): Features that both losses depend on;
                gradients are measured there.

        Returns:
            dict: The weighted losses under their names, ``loss_gor`` if there
            are thetas, and values to log under ``gor_*``.
        """
        task, kd = total_loss(task_losses), total_loss(kd_losses)
        raw = torch.stack([task.detach(), kd.detach()]).float()
        dist.all_reduce(raw, 'mean')
        needed = self.needs_gradients()
        stats = None
        if needed or self.measure_gradients:
            stats, finite = measure_gradients(task, kd, shared)
            if needed and not finite:
                self._warn_of_overflow(raw, stats.norms)
        self.measure_gradients = False
        weights, own = self.weigh(raw, stats if needed else None)
        weighted = _scaled(task_losses, weights[0])
        weighted.update(_scaled(kd_losses, weights[1]))
        if own is not None:
            weighted['loss_gor'] = own
        weighted.update(
            gor_w_task=weights[0],
            gor_w_kd=weights[1],
            gor_raw_task=raw[0],
            gor_raw_kd=raw[1],
            **self.diagnostics(),
        )
        if stats is not None:
            seen = stats.norms * weights
            weighted['gor_grad_ratio'] = seen[1] / seen[0]
            weighted['gor_grad_cosine'] = stats.cosine
        return weighted

    def _warn_of_overflow(self, losses: Tensor, norms: Tensor) -> None:
        """Warn once: the losses are finite, but a gradient is not."""
        if self._warned or not torch.isfinite(losses).all():
            return
        self._warned = True
        print_log(
            f'{type(self).__name__} skips steps whose gradients at the shared '
            'features overflow: expected finite norms, got '
            f'{norms[0]:.3g} for the task loss and {norms[1]:.3g} for the '
            "distillation loss. Lower that loss's loss_weight, or set "
            "optim_wrapper=dict(type='Bfloat16OptimWrapper', ...). "
            'This warning comes only once.',
            logger='current',
            level=logging.WARNING,
        )


def _scaled(losses: Losses, weight: Tensor) -> dict:
    scaled: dict = {}
    for name, value in losses.items():
        if 'loss' not in name:
            scaled[name] = value
        elif isinstance(value, Tensor):
            scaled[name] = value * weight
        else:
            scaled[name] = [part * weight for part in value]
    return scaled
