"""How many channels the input images of a detector have."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_SIDE = 64
#: Assumed where neither the model nor its file tells.
COLOUR = 3


class _Reached(Exception):
    """Raised when an image reaches the first layer; ends the forward pass."""

    def __init__(self, layer: Any, x: Tensor) -> None:
        linear = isinstance(layer, nn.Linear)
        wanted = layer.in_features if linear else layer.in_channels
        self.channels = wanted // x.shape[-1 if linear else 1]


@torch.no_grad()
def image_channels(model: Any) -> int | None:
    """Number of image channels, read from the detector's first layer.

    An image with one channel is sent through the model until it reaches the
    first convolution or linear. The layer's input channels alone would not
    do: operations before it may stack several pixels into the channels, as
    YOLOX's Focus does.

    Args:
        model (nn.Module): Detector with ``extract_feat``. It is not changed.

    Returns:
        int | None: None if no layer is reached.
    """

    def stop(layer: nn.Module, inputs: tuple) -> None:
        raise _Reached(layer, inputs[0])

    hooks = [
        layer.register_forward_pre_hook(stop)
        for layer in model.modules()
        if isinstance(layer, (_ConvNd, nn.Linear))
    ]
    like = next(model.parameters(), torch.zeros(()))
    try:
        model.extract_feat(like.new_zeros(1, 1, _SIDE, _SIDE))
    except _Reached as reached:
        return reached.channels
    except Exception:  # some models only work with their own channels
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return None
