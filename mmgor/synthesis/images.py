"""What images are like before a network has shaped them."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Of colours, relative to that of greys.
_TINT = 0.3


def total_variation(pixels: Tensor) -> Tensor:
    """Mean squared difference of neighbours, down plus across.

    Mahendran and Vedaldi, "Understanding Deep Image Representations by
    Inverting Them", CVPR 2015, with beta = 2.

    Args:
        pixels (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: Shape (), in squared units of ``pixels``.
    """
    down = (pixels[:, :, 1:] - pixels[:, :, :-1]).square().mean()
    across = (pixels[..., 1:] - pixels[..., :-1]).square().mean()
    return down + across


def smooth_noise(
    generator: torch.Generator, count: int, size: tuple[int, int]
) -> Tensor:
    """Noise of all scales, as photos have it: twice as fine, half as strong.

    Args:
        generator (torch.Generator): Source of all random choices.
        count (int): Number of images.
        size (tuple[int, int]): Height and width in pixels.

    Returns:
        Tensor: From 0 to 1, shape (count, 3, H, W).
    """
    image = torch.full((count, 3, *size), 0.5)
    strength, side = 0.15, 2
    while side <= min(size):
        grey = torch.randn(count, 1, side, side, generator=generator)
        tint = torch.randn(count, 3, side, side, generator=generator)
        image += strength * F.interpolate(
            grey + _TINT * tint, size, mode='bilinear', align_corners=False
        )
        strength, side = strength / 1.6, side * 2
    return image.clamp(0, 1)
