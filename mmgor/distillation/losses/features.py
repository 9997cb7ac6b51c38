"""Feature losses without parameters of their own.

Feature maps of student and teacher have the shape (N, C, H, W).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.io.config_values import number
from mmgor.registry import MODELS

from .class_kl import categorical_kl

EPS = 1e-6


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Pearson-correlation distillation (PKD).

    Features are normalised to zero mean and unit variance per channel, over
    (N, H, W). Half their mean squared difference is 1 - Pearson's
    correlation. Source: Cao et al., NeurIPS 2022, eq. 4.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Same shape.

    Returns:
        Tensor: Scalar in [0, 2].

    Example:
        >>> maps = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 2, 2)
        >>> round(pkd(maps, 5 * maps + 1).item(), 4)
        0.0
        >>> round(pkd(maps, -maps).item(), 4)
        2.0
    """
    return F.mse_loss(_standardised(student), _standardised(teacher)) / 2


def _standardised(x: Tensor) -> Tensor:
    flat = x.transpose(0, 1).flatten(1)
    mean = flat.mean(1, keepdim=True)
    std = flat.std(1, unbiased=False, keepdim=True)
    # A channel that rounding made constant would get gradients of 1 / EPS.
    return torch.where(std > 0, (flat - mean) / (std + EPS), 0.0)


def cwd(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Channel-wise distillation (CWD).

    KL divergence between the spatial softmax maps of each channel, times T^2,
    averaged over images and channels. Source: Shu et al., ICCV 2021, eq. 3-4.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Same shape.
        temperature (float): T > 0.

    Returns:
        Tensor: Scalar.
    """
    return categorical_kl(
        student.flatten(2), teacher.flatten(2), temperature
    ).mean()


def feature_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Same shape.

    Returns:
        Tensor: Scalar.
    """
    return F.mse_loss(student, teacher)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention transfer.

    Half the squared distance of the spatial attention maps sum_c F_c^2, each
    normalised to length 1 per image. This is 1 - the cosine of the maps.
    Source: Zagoruyko & Komodakis, ICLR 2017, eq. 2. The paper does not square
    the distance, but its authors' code does: only the square has a gradient
    where the two maps agree.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Shape (N, C', H, W).

    Returns:
        Tensor: Scalar in [0, 1].
    """
    s, t = (
        F.normalize(x.square().sum(1).flatten(1), dim=1)
        for x in (student, teacher)
    )
    return (s - t).square().sum(1).mean() / 2


@MODELS.register_module()
class PKDLoss(nn.Module):
    """Pearson-correlation distillation, see :func:`pkd`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return pkd(student, teacher)


@MODELS.register_module()
class CWDLoss(nn.Module):
    """Channel-wise distillation, see :func:`cwd`.

    Args:
        temperature (float): T > 0; a larger one softens the spatial maps.

    Raises:
        ValueError: If ``temperature`` is not positive.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = number('temperature', temperature, '(0, inf)')

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return cwd(student, teacher, self.temperature)


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """Mean squared error, see :func:`feature_mse`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return feature_mse(student, teacher)


@MODELS.register_module()
class AttentionTransferLoss(nn.Module):
    """Spatial attention transfer, see :func:`attention_transfer`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_transfer(student, teacher)
