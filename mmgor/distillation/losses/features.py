"""Feature losses without parameters of their own.

Maps of student and teacher are of shape (N, C, H, W).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.io.config_values import number
from mmgor.registry import MODELS

from .class_kl import categorical_kl

EPS = 1e-6


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """PKD (Cao et al., NeurIPS 2022, eq. 4): features are normalised to zero
    mean and unit variance per channel over (N, H, W); half their mean squared
    difference is 1 - Pearson's correlation.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Same shape.

    Returns:
        Tensor: Scalar in [0, 2].
    """
    return F.mse_loss(_standardised(student), _standardised(teacher)) / 2


def _standardised(x: Tensor) -> Tensor:
    flat = x.transpose(0, 1).flatten(1)
    mean = flat.mean(1, keepdim=True)
    std = flat.std(1, unbiased=False, keepdim=True)
    # A constant channel, as rounding can make, would get a gradient / EPS.
    return torch.where(std > 0, (flat - mean) / (std + EPS), 0.0)


def cwd(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """CWD (Shu et al., ICCV 2021, eq. 3-4): KL between the spatial softmax
    maps of each channel, times T^2, mean over pictures and channels.

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
    """Mean squared difference of features of one shape."""
    return F.mse_loss(student, teacher)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention transfer (Zagoruyko & Komodakis, ICLR 2017, eq. 2): half the
    squared distance of spatial attention maps sum_c F_c^2, each picture's
    brought to length 1; that is, 1 - their cosine.

    The paper's distance is not squared, its authors' code squares: only that
    has a gradient where the two agree.

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
        temperature (float): Softens the spatial maps; > 0.

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
    """Plain mean squared error, see :func:`feature_mse`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return feature_mse(student, teacher)


@MODELS.register_module()
class AttentionTransferLoss(nn.Module):
    """Spatial attention transfer, see
    :func:`attention_transfer`."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_transfer(student, teacher)
