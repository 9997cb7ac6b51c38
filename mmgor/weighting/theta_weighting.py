"""Base class of the balancers with two trainable scalars, the thetas."""

import torch
from torch import Tensor, nn

from . import functional
from .base import BaseWeighting


class ThetaWeighting(BaseWeighting):
    """Weights that are a function of two trainable scalars, the thetas.

    Each balancer computes the thetas' gradient in closed form, scaled so that
    a step size between 0.02 and 0.3 suits any losses. :meth:`theta_loss` keeps
    it, and ``GoRWeightHook`` moves the thetas along it by plain gradient
    descent (:mod:`mmgor.weighting.theta_steps`) whenever the optimizer steps,
    whichever optimizer that is.

    DDP: the gradient comes from losses and norms over all ranks, so it is the
    same on each. AMP: everything is float32.

    Attributes:
        theta_task (nn.Parameter): Shape ().
        theta_kd (nn.Parameter): Shape ().
        theta_lr (float, optional): A step size that belongs to the method.
            None: ``GoRWeightHook`` chooses it from the length of the run.
        highest_theta_lr (float): Below it the thetas come to rest for any
            losses, where the method has a resting point: 2 / s, where s is
            the steepest slope of the gradient there. A step of plain gradient
            descent multiplies the distance to that point by 1 - theta_lr * s.
            GoR's slope is 1: at rest, the second derivative of J = w L / m +
            theta is w L / m = 1. Methods without a resting point (GradNorm,
            FAMO) have the same limit, against absurd values.
        moved_by_hook (bool): Whether ``GoRWeightHook`` moves the thetas now.
    """

    theta_lr: float | None = None
    highest_theta_lr = 2.0
    moved_by_hook = False

    def __init__(self) -> None:
        super().__init__()
        self.theta_task = nn.Parameter(torch.zeros(()))
        self.theta_kd = nn.Parameter(torch.zeros(()))
        self._gradient_sum: Tensor | float = 0.0
        self._gradient_calls = 0

    def theta(self) -> Tensor:
        """Both thetas as one tensor of shape (2, ), with a gradient."""
        return torch.stack([self.theta_task, self.theta_kd]).float()

    def theta_loss(self, gradient: Tensor) -> Tensor:
        """Keep the thetas' gradient for their next step.

        Args:
            gradient (Tensor): With respect to (theta_task, theta_kd),
                detached, shape (2, ).

        Returns:
            Tensor: A scalar of value 0 with this gradient, to be used as
            ``loss_gor``: it makes the thetas a part of the graph.
        """
        if self.training:
            self._gradient_sum = self._gradient_sum + gradient
            self._gradient_calls += 1
        return functional.attach_gradient(self.theta(), gradient)

    def take_gradient(self) -> Tensor | None:
        """Hand over the thetas' gradient and forget it.

        Unlike ``theta.grad``, it is not changed by a loss scaler, gradient
        clipping or gradient accumulation.

        Returns:
            Tensor, optional: Its mean over the calls since it was last taken,
            shape (2, ); None if there was no call.
        """
        if not self._gradient_calls:
            return None
        gradient = torch.as_tensor(self._gradient_sum / self._gradient_calls)
        self._gradient_sum, self._gradient_calls = 0.0, 0
        return gradient

    def diagnostics(self) -> dict[str, Tensor]:
        theta = self.theta().detach()
        return dict(gor_theta_task=theta[0], gor_theta_kd=theta[1])
