"""A small network as a ``.tflite`` file."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.deploy.description.tflite import pack_tflite
from tests.support.frozen import SmallNetwork
from tests.support.metadata import small_metadata


@dataclass
class Converted:
    """A network and what litert-torch made of it.

    Attributes:
        network (nn.Module): The frozen network.
        images (Tensor): Example of its input.
        model (ModelT): Object of LiteRT's schema. Copy it to change it.
        folded (int): Number of folded batch norms.
    """

    network: nn.Module
    images: Tensor
    model: Any
    folded: int


def convert_small(bits: int = 4) -> Converted:
    from mmgor.deploy.litert.conversion import convert

    torch.manual_seed(0)
    network = SmallNetwork(bits, unit=1.07).eval()
    images = torch.randn(1, 3, 16, 24)
    found = convert(network, images, ['output_0'])
    return Converted(network, images, *found)


def write_tflite(model, path, **changes):
    """Write a model of :func:`convert_small` with metadata."""
    text = small_metadata(target='litert', **changes)
    path.write_bytes(pack_tflite(model, text))
    return path
