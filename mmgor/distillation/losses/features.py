"""Feature losses without parameters, thin shells of the functions."""

from torch import Tensor, nn

from mmgor.io.config_values import number
from mmgor.registry import MODELS

from . import feature_functional, functional


@MODELS.register_module()
class PKDLoss(nn.Module):
    """Pearson-correlation distillation, see :func:`functional.pkd`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return functional.pkd(student, teacher)


@MODELS.register_module()
class CWDLoss(nn.Module):
    """Channel-wise distillation, see :func:`functional.cwd`.

    Args:
        temperature (float): Softens the spatial maps; > 0.

    Raises:
        ValueError: If ``temperature`` is not positive.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = number('temperature', temperature, '(0, inf)')

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return functional.cwd(student, teacher, self.temperature)


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """Plain mean squared error, see :func:`functional.feature_mse`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return functional.feature_mse(student, teacher)


@MODELS.register_module()
class AttentionTransferLoss(nn.Module):
    """Spatial attention transfer, see
    :func:`feature_functional.attention_transfer`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return feature_functional.attention_transfer(student, teacher)
