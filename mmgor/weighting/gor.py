"""The Game of Regularizer: two trainable scalars weigh two losses."""

import torch
from torch import Tensor

from mmgor.io.config_values import choice, integer, number
from mmgor.registry import MODELS

from . import functional
from .gradients import GradientStats
from .theta_weighting import ThetaWeighting

#: How each form turns the thetas into weights.
FORMS = {
    'ratio': functional.ratio_weights,
    'zero_sum': functional.zero_sum_weights,
    'barrier': functional.weights_of,
    'gradient': functional.zero_sum_weights,
}
# exp(20) = 5e8; a theta beyond this limit means that something is wrong.
THETA_LIMIT = 20.0


@MODELS.register_module()
class GoRWeighting(ThetaWeighting):
    """Game of Regularizer (after arXiv 2509.20854).

    The two thetas are ``nn.Parameter`` and the class returns a ``loss_gor``,
    but the student's optimizer does not move the thetas. This class computes
    their gradient, and ``GoRWeightHook`` moves them, with the functions of
    :mod:`mmgor.weighting.theta_steps`.

    The equations are in :mod:`mmgor.weighting.functional`; they are ours. The
    thetas play over the losses, each relative to its mean at the start of the
    game (its unit). With ``w = exp(-theta)``, the forms are:

    - ``ratio``: the weights are ``(1, 2 w_K / w_T)``. The task loss counts as
      it does without distillation, and the weighted distillation loss comes to
      rest at twice the task loss.
    - ``barrier``: the weights are ``w``. They grow as the losses fall, so the
      student's gradient keeps its size.
    - ``zero_sum``: the weights are ``2 softmax(-theta)``, which sum to 2.
    - ``gradient``: as ``zero_sum``, but the game is played over the norms of
      the two gradients at the shared features.

    The distillation loss's weight is then multiplied by the ratio of the
    units, task over distillation, so that a stock learning rate keeps its
    meaning: the weights start at (1, L_T / L_K), those of ``ratio`` at
    (1, 2 L_T / L_K).

    In the first ``init_iters`` calls (the balanced start) the units follow the
    running mean and the thetas stay at 0; after that they are trained. Only
    calls in which both losses (``gradient``: both norms, if they are measured)
    are finite and positive count; other calls change nothing. Until the first
    call that counts, the units are 1.

    Losses of very different size: the balanced start takes the units out. If a
    unit changes later, the thetas follow at their own step size.

    They also follow a distillation loss that vanishes because the student
    agrees with its teacher, down to theta_kd = -THETA_LIMIT. Say it falls from
    1 to 1e-9 while the task loss stays at 1. Then ``ratio`` gives it the
    weight 2 exp(20) = 1e9 and ``barrier`` half of that, so that what remains
    of it is trained like the task (the bound of ``ratio``, 2 exp(2
    THETA_LIMIT), is reached if the task loss grows as far). ``zero_sum`` and
    ``gradient`` lower the task's weight to 2 exp(-20) = 4e-9: the task is not
    trained any more.

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). ``gradient`` runs two more backward passes,
    from each loss down to the features, in each call of the balanced start and
    in every ``gradient_interval``-th call after it. DDP and AMP: see
    :class:`~mmgor.weighting.theta_weighting.ThetaWeighting`; norms are
    averaged over the ranks.

    Attributes:
        theta_task (nn.Parameter): Shape ().
        theta_kd (nn.Parameter): Shape ().
        units (Tensor): Mean losses (``gradient``: mean norms) in the balanced
            start, task first, shape (2, ).

    Args:
        form (str): 'ratio', 'barrier', 'zero_sum' or 'gradient'.
        init_iters (int): Number of calls in the balanced start.
        momentum (float): Momentum of the running mean of the losses, which
            sets the units in the balanced start and the logged distance to
            equilibrium.
        gradient_interval (int): For ``gradient``: the number of calls between
            two measurements after the balanced start.

    Raises:
        ValueError: If the form is unknown or a number is out of range.
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
        """Update the running mean, and hold the thetas in the balanced start.

        Args:
            strength (Tensor): Losses or norms, shape (2, ).
            usable (Tensor): Whether this call counts, a bool of shape ().
        """
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
