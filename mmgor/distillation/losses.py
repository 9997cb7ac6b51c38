"""Feature losses without parameters, thin shells of the functions."""

from torch import Tensor, nn

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
        check_temperature(temperature)
        self.temperature = temperature

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


def check_foreground_gamma(foreground_gamma: float) -> None:
    """Raise ValueError unless the exponent is at least 0."""
    if foreground_gamma < 0:
        raise ValueError(
            f'foreground_gamma must be at least 0, got {foreground_gamma}.'
        )


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is positive."""
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}.')
