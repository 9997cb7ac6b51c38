"""``Job``: what a writer of files gets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mmgor.targets import Target

from .network import Network


@dataclass(frozen=True)
class Job:
    """A network to be written to a file.

    Args:
        network (Network): With frozen quantizers, in evaluation mode.
        images (Tensor): Example of its input, shape (N, C, H, W).
        metadata (dict): Metadata of the file; its ``input`` has None where a
            side is dynamic.
        path (Path): File to write; its suffix decides the format.
        target (Target, optional): Whose rules hold.
        int4 (bool): Write weights of up to 4 bits as int4.
    """

    network: Network
    images: Tensor
    metadata: dict[str, Any]
    path: Path
    target: Target | None
    int4: bool

    @property
    def dynamic(self) -> bool:
        """Whether the file takes any image and batch size."""
        return self.metadata['input']['batch'] is None
