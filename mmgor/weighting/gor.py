"""The Game of Regularizer: two trainable scalars weigh two losses."""

import torch
from torch import Tensor

from mmgor.io.config_values import choice, integer, number
from mmgor.registry import MODELS

from . import functional
from .gradients import GradientStats
from .theta_weighting import ThetaWeighting

#: What the student sees of the thetas.
FORMS = {
    'ratio': functional.ratio_weights,
    'zero_sum': functional.zero_sum_weights,
    'barrier': functional.weights_of,
    'gradient': functional.zero_sum_weights,
}
# exp(+-20) = 5e8 either way: beyond, something is wrong.
THETA_LIMIT = 20.0


@MODELS.register_module()
class GoRWeighting(ThetaWeighting):
    """Game of Regularizer (after arXiv 2509.20854; see ``functional`` for
    the equations, which are ours).

    The thetas play over the losses, each in units of its mean at the start
    of the game. Forms:

    - ``ratio``: with ``w = exp(-theta)`` the student sees
      ``(1, 2 w_K / w_T)``: the task loss as without distillation, and a
      distillation loss that comes to rest at twice the task loss.
    - ``barrier``: the student sees ``w``. The weights grow as the losses
      fall, so that the student's gradient keeps its size.
    - ``zero_sum``: the student sees ``u = 2 softmax(-theta)``, so that the
      weights sum to 2.
    - ``gradient``: as ``zero_sum``, over the norms of the two gradients at
      the shared features in place of the losses.

    The distillation loss then gets the task loss's unit, so that a stock
    learning rate keeps its meaning whatever the two losses' units are: the
    weights start at (1, L_T / L_K), those of ``ratio`` at (1, 2 L_T / L_K).

    In the first ``init_iters`` calls the units follow the running mean and
    the thetas stay at 0, so that the game starts balanced; then they are
    trained. A call counts where both losses (``gradient``: norms, where they
    are measured) are finite and positive, any other leaves the game as it is;
    until the first their units are 1.

    Losses of very different size: the balanced start takes either's unit out;
    a unit that changes later is followed at the thetas' own step size.

    A distillation loss that vanishes (a student that agrees with its teacher)
    is followed as well, down to theta_kd = -THETA_LIMIT. Falling from 1 to
    1e-9 beside a task loss of 1 it gets the weight 2 exp(20) = 1e9 from
    ``ratio`` (whose bound is 2 exp(2 THETA_LIMIT), should the task loss grow
    as far) and half of it from ``barrier``: its remainder is trained like the
    task. ``zero_sum`` and ``gradient`` drive the task's weight to
    2 exp(-20) = 4e-9: the task is trained no more.

    Cost: none that shows in a step (docs/results/balancers.md); ``gradient``
    takes two more backward passes, from each loss down to the features, in
    the balanced start and in one of ``gradient_interval`` steps after it. DDP
    and AMP: see
    :class:`~mmgor.weighting.theta_weighting.ThetaWeighting`; norms are means
    over the ranks' own.

    Attributes:
        theta_task (nn.Parameter): Shape ().
        theta_kd (nn.Parameter): Shape ().
        units (Tensor): Mean losses (``gradient``: norms) of the balanced
            start, task first, shape (2, ).

    Args:
        form (str): One of those above.
        init_iters (int): Calls of the balanced start.
        momentum (float): Of the running mean that the units follow in the
            balanced start and the log's distance to equilibrium is measured
            against.
        gradient_interval (int): ``gradient`` only: after the balanced start,
            measure every so many calls.

    Raises:
        ValueError: On an unknown form, or numbers out of range.
    """

    mean: Tensor
    strength: Tensor
    count: Tensor
    calls: Tensor
    units: Tensor

    def __init__(
        self,
        form: str = 'ratio',
        init_iters: int = 20,
        momentum: float = 0.1,
        gradient_interval: int = 10,
    ) -> None:
        super().__init__()
        self.form = choice('GoR form', form, FORMS)
        self.init_iters = integer('init_iters', init_iters, 1)
        self.momentum = number('momentum', momentum, '(0, 1]')
        self.gradient_interval = integer(
            'gradient_interval', gradient_interval, 1
        )
        self.register_buffer('mean', torch.ones(2))
        self.register_buffer('strength', torch.ones(2))
        self.register_buffer('count', torch.zeros(2, dtype=torch.int64))
        self.register_buffer('calls', torch.zeros((), dtype=torch.int64))
        self.register_buffer('units', torch.ones(2))

    def needs_gradients(self) -> bool:
        if self.form != 'gradient' or not self.training:
            return False
        calls = int(self.calls)
        return calls < self.init_iters or calls % self.gradient_interval == 0

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, Tensor]:
        strength: Tensor | None = losses
        if self.form == 'gradient':
            strength = None if gradients is None else gradients.norms
        usable = functional.usable(losses)
        if strength is not None:
            usable = usable & functional.usable(strength)
        if self.training:
            if strength is not None:
                self._observe(strength, usable)
            self.calls += usable
        fixed = self.theta().detach()
        gradient = functional.theta_gradient(fixed, self.strength / self.units)
        own = self.theta_loss(torch.where(usable, gradient, 0.0))
        weights = FORMS[self.form](fixed)
        return weights * self.units[0] / self.units, own

    def diagnostics(self) -> dict[str, Tensor]:
        away = functional.distance(
            self.theta().detach(), self.mean / self.units
        )
        return dict(super().diagnostics(), gor_distance=away.abs().max())

    @torch.no_grad()
    def _observe(self, strength: Tensor, usable: Tensor) -> None:
        """Update the running mean; keep the game balanced at the start."""
        self.strength.copy_(torch.where(usable, strength, self.strength))
        mean = functional.running_mean(
            self.mean, strength, self.count, self.momentum
        )
        self.mean.copy_(torch.where(usable, mean, self.mean))
        self.count += usable
        seen = self.count.min()
        starting = seen <= self.init_iters
        self.units.copy_(
            torch.where(starting & (seen > 0), self.mean, self.units)
        )
        for theta in (self.theta_task, self.theta_kd):
            value = torch.where(starting, 0.0, theta)
            theta.copy_(value.clamp(-THETA_LIMIT, THETA_LIMIT))
