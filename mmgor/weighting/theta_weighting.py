"""What balancers with two trainable scalars have in common."""

import torch
from torch import Tensor, nn

from . import functional
from .base import BaseWeighting


class ThetaWeighting(BaseWeighting):
    """Weights that follow from two trainable scalars.

    The gradient is a balancer's own closed form, in units in which a step
    size between 0.02 and 0.3 suits any losses. ``GoRWeightHook`` takes it
    from here and moves the thetas by plain gradient descent when the
    optimizer steps, whatever that one is.

    DDP: the thetas' gradient comes from losses and norms over all ranks, so
    that it is the same on each. AMP: everything is in float32.

    Attributes:
        theta_task (nn.Parameter): Shape ().
        theta_kd (nn.Parameter): Shape ().
        theta_lr (float, optional): Step size of the method's own; None:
            ``GoRWeightHook``'s, which follows from the length of the run.
        moved_by_hook (bool): Whether ``GoRWeightHook`` moves the thetas.
    """

    theta_lr: float | None = None
    moved_by_hook = False

    def __init__(self) -> None:
        super().__init__()
        self.theta_task = nn.Parameter(torch.zeros(()))
        self.theta_kd = nn.Parameter(torch.zeros(()))
        self._gradient_sum: Tensor | float = 0.0
        self._gradient_calls = 0

    def theta(self) -> Tensor:
        """Both thetas, shape (2, ), with their graph."""
        return torch.stack([self.theta_task, self.theta_kd]).float()

    def theta_loss(self, gradient: Tensor) -> Tensor:
        """A scalar of value 0 with this gradient to the thetas.

        Args:
            gradient (Tensor): Of (task, kd), shape (2, ), detached.
        """
        if self.training:
            self._gradient_sum = self._gradient_sum + gradient
            self._gradient_calls += 1
        return functional.attach_gradient(self.theta(), gradient)

    def take_gradient(self) -> Tensor | None:
        """The thetas' gradient, the mean over the calls since the last time
        it was taken, shape (2, ); None if there were none.

        It is what ``theta.grad`` holds before a loss scaler, gradient
        clipping or accumulation changed it.
        """
        if not self._gradient_calls:
            return None
        gradient = torch.as_tensor(self._gradient_sum / self._gradient_calls)
        self._gradient_sum, self._gradient_calls = 0.0, 0
        return gradient

    def diagnostics(self) -> dict[str, Tensor]:
        theta = self.theta().detach()
        return dict(gor_theta_task=theta[0], gor_theta_kd=theta[1])
