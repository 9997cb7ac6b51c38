"""Makes Swin backbones traceable for any batch size.

mmdet computes the batch size as ``int(windows / (H * W / size / size))``. A
trace turns that into a constant, and the graph is wrong for any other batch
size.
"""

from functools import partial

from mmdet.models.backbones.swin import ShiftWindowMSA
from torch import Tensor, nn


def join_windows(
    size: int, windows: Tensor, height: int, width: int
) -> Tensor:
    """Join the windows of feature maps; does what mmdet's
    ``ShiftWindowMSA.window_reverse`` does.

    Args:
        size (int): Height and width of a window.
        windows (Tensor): Shape (N * windows per map, size, size, C).
        height (int): Height of the map, a multiple of ``size``.
        width (int): Width of the map, a multiple of ``size``.

    Returns:
        Tensor: Shape (N, height, width, C).
    """
    grid = windows.unflatten(0, (-1, height // size, width // size))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def make_swin_traceable(network: nn.Module) -> None:
    """Let the Swin blocks of a network use :func:`join_windows`.

    Args:
        network (nn.Module): Changed in place.
    """
    for module in network.modules():
        if isinstance(module, ShiftWindowMSA):
            module.window_reverse = partial(join_windows, module.window_size)
