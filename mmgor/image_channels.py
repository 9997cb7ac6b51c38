"""How many channels the images of a detector have."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_SIDE = 64
#: Where neither a model nor a file says.
COLOUR = 3


class _Reached(Exception):
    """An image has come to the first layer."""

    def __init__(self, layer: Any, x: Tensor) -> None:
        linear = isinstance(layer, nn.Linear)
        wanted = layer.in_features if linear else layer.in_channels
        self.channels = wanted // x.shape[-1 if linear else 1]


@torch.no_grad()
def image_channels(model: Any) -> int | None:
    """Channels of the images that a detector takes, by its first layer.

    An image of one channel is sent as far as that: what lies before may put
    several pixels into one (YOLOX's Focus).

    Args:
        model (nn.Module): Detector with ``extract_feat``; it is left as it
            was.

    Returns:
        int | None: None where no layer is reached.
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
    except Exception:  # what lies before may not work with one channel
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return None
