"""Swin's windows, put together in a way that a trace keeps for any batch.

mmdet counts the images as ``int(windows / (H * W / size / size))``. The trace
makes a number of that, and the graph is wrong for any other batch.
"""

from functools import partial

from mmdet.models.backbones.swin import ShiftWindowMSA
from torch import Tensor, nn


def join_windows(
    size: int, windows: Tensor, height: int, width: int
) -> Tensor:
    """Windows back in their places.

    Args:
        size (int): Side of a window.
        windows (Tensor): Shape (N * windows of an image, size, size, C).
        height (int): Of the image, a multiple of ``size``.
        width (int): The same.

    Returns:
        Tensor: Shape (N, height, width, C).
    """
    grid = windows.unflatten(0, (-1, height // size, width // size))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def make_swin_traceable(network: nn.Module) -> None:
    """Let the Swin blocks of a network use :func:`join_windows`."""
    for module in network.modules():
        if isinstance(module, ShiftWindowMSA):
            module.window_reverse = partial(join_windows, module.window_size)
