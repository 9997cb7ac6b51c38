"""What every balancer of task and distillation loss has in common."""

from collections.abc import Sequence

import torch
from mmengine import dist
from torch import Tensor, nn

from .gradients import gradient_stats

Losses = dict[str, Tensor | list[Tensor]]


def total_loss(losses: Losses) -> Tensor:
    """Sum of the entries mmengine would optimise, as it would sum them.

    Args:
        losses (dict): Names to a tensor or a list of tensors (one a level);
            names without 'loss' (``acc``) are left out.

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
            f'expected a loss to weigh, got the keys {list(losses)}; names '
            "of losses contain 'loss'."
        )
    return torch.stack(terms).sum()


class BaseWeighting(nn.Module):
    """Weighs the task losses against the distillation losses.

    Attributes:
        gradient_interval (int): Measure gradients at the shared features
            every so many calls, because the balancer needs them; 0: never.
        measure_gradients (bool): Measure them in the next call, for the log.
    """

    gradient_interval = 0

    def __init__(self) -> None:
        super().__init__()
        self.measure_gradients = False
        self._calls = 0

    def weigh(
        self, losses: Tensor, norms: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Effective weights for this step.

        Args:
            losses (Tensor): Task and distillation loss over all ranks,
                detached, shape (2, ).
            norms (Tensor, optional): Norms of their gradients at the shared
                features, shape (2, ), in the steps that measured them.

        Returns:
            tuple[Tensor, Tensor | None]: Weights of shape (2, ), detached,
            and a scalar ``loss_gor`` for the balancer's own parameters.
        """
        raise NotImplementedError

    def diagnostics(self) -> dict[str, Tensor]:
        """Further values to log, without 'loss' in their names."""
        return {}

    def forward(
        self,
        task_losses: Losses,
        kd_losses: Losses,
        shared: Sequence[Tensor] = (),
    ) -> dict:
        """Weigh one step's losses.

        Args:
            task_losses (dict): The stock detector's losses.
            kd_losses (dict): ``loss_kd_<name>`` -> scalar.
            shared (Sequence[Tensor]): Features both losses depend on, where
                gradients are measured.

        Returns:
            dict: The weighted losses under their names, ``loss_gor`` if the
            balancer learns, and ``gor_*`` diagnostics.
        """
        task, kd = total_loss(task_losses), total_loss(kd_losses)
        raw = torch.stack([task.detach(), kd.detach()]).float()
        dist.all_reduce(raw, 'mean')
        stats = self._gradient_stats(task, kd, shared)
        weights, own = self.weigh(raw, None if stats is None else stats[0])
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
            norms = stats[0] * weights
            weighted['gor_grad_ratio'] = norms[1] / norms[0]
            weighted['gor_grad_cosine'] = stats[1]
        return weighted

    def _gradient_stats(
        self, task: Tensor, kd: Tensor, shared: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        interval = self.gradient_interval
        due = bool(interval) and self._calls % interval == 0
        self._calls += 1
        wanted, self.measure_gradients = self.measure_gradients, False
        if not (due or wanted):
            return None
        return gradient_stats(task, kd, shared)


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
