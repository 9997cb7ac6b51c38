"""The Game of Regularizer: two trainable scalars weigh two losses."""

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .base import BaseWeighting

FORMS = ('zero_sum', 'barrier', 'gradient')
# exp(+-10): beyond, one loss is 10^8 times the other and something is wrong.
THETA_LIMIT = 10.0


@MODELS.register_module()
class GoRWeighting(BaseWeighting):
    """Game of Regularizer (after arXiv 2509.20854; see ``functional`` for
    the equations, which are ours).

    Forms:

    - ``zero_sum``: the thetas play over the losses; the student sees
      ``u = 2 softmax(-theta)``, so the weights sum to 2.
    - ``barrier``: the same game; the student sees ``w = exp(-theta)`` and
      the loss reported is the potential J.
    - ``gradient``: the thetas play over the norms of the two gradients at
      the shared features; weights as in ``zero_sum``.

    In the first ``init_iters`` calls theta is put on its resting point of the
    running mean, so that the game starts balanced whatever the losses' units;
    then the optimizer moves it.

    Attributes:
        theta_task (nn.Parameter): Shape ().
        theta_kd (nn.Parameter): Shape ().

    Args:
        form (str): One of the three above.
        init_iters (int): Calls of the balanced start.
        momentum (float): Of the running mean that theta starts from and the
            log's distance to equilibrium is measured against.
        gradient_interval (int): ``gradient`` only: measure every so many
            calls.

    Raises:
        ValueError: On an unknown form, or numbers out of range.
    """

    mean: Tensor
    count: Tensor
    strength: Tensor

    def __init__(
        self,
        form: str = 'zero_sum',
        init_iters: int = 20,
        momentum: float = 0.1,
        gradient_interval: int = 10,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(
                f'unknown GoR form {form!r}; expected one of {list(FORMS)}.'
            )
        if init_iters < 1 or gradient_interval < 1 or not 0 < momentum <= 1:
            raise ValueError(
                'expected init_iters >= 1, gradient_interval >= 1 and '
                f'momentum in (0, 1], got {init_iters}, {gradient_interval} '
                f'and {momentum}.'
            )
        self.form = form
        self.init_iters = init_iters
        self.momentum = momentum
        if form == 'gradient':
            self.gradient_interval = gradient_interval
        self.theta_task = nn.Parameter(torch.zeros(()))
        self.theta_kd = nn.Parameter(torch.zeros(()))
        self.register_buffer('mean', torch.ones(2))
        self.register_buffer('strength', torch.ones(2))
        self.register_buffer('count', torch.zeros((), dtype=torch.int64))
        #: What the optimizer should see as (theta_task, theta_kd) gradient,
        #: before any clipping; GoRWeightHook puts it back.
        self.theta_gradient = torch.zeros(2)

    def weigh(
        self, losses: Tensor, norms: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        self._observe(losses, norms)
        theta = torch.stack([self.theta_task, self.theta_kd]).float()
        fixed = theta.detach()
        gradient = functional.theta_gradient(fixed, self.strength)
        self.theta_gradient = gradient
        own = functional.attach_gradient(theta, gradient)
        if self.form == 'barrier':
            return functional.weights_of(fixed), own + fixed.sum()
        return functional.zero_sum_weights(fixed), own

    def diagnostics(self) -> dict[str, Tensor]:
        theta = torch.stack([self.theta_task, self.theta_kd]).detach()
        away = functional.distance(theta, self.mean)
        return dict(
            gor_theta_task=theta[0],
            gor_theta_kd=theta[1],
            gor_distance=away.abs().max(),
        )

    @torch.no_grad()
    def _observe(self, losses: Tensor, norms: Tensor | None) -> None:
        """Update the running mean; keep theta balanced at the start."""
        if self.form == 'gradient':
            strength = self.strength if norms is None else norms
            fresh = norms is not None
        else:
            strength, fresh = losses, True
        usable = torch.isfinite(strength) & (strength > 0)
        strength = torch.where(usable, strength, torch.nan)
        self.strength.copy_(strength)
        if not self.training:
            return
        if fresh:
            self.mean.copy_(
                functional.running_mean(
                    self.mean, strength, self.count, self.momentum
                )
            )
            self.count += 1
        starting = self.count <= self.init_iters
        for theta, mean in zip((self.theta_task, self.theta_kd), self.mean):
            start = torch.where(starting, torch.log(mean), theta)
            theta.copy_(start.clamp(-THETA_LIMIT, THETA_LIMIT))
