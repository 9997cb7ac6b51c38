"""``Network``: the part of a detector that is exported."""

from typing import Any

from torch import Tensor, nn

from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.parts import Parts, parts_of

from .compiled_ops import check_modules


class Network(nn.Module):
    """The parts of a detector that a file has.

    It takes images and gives their outputs as a flat list (see
    :meth:`.Parts.outputs`), or detections if it has ``graph_nms``.

    Args:
        detector (nn.Module): With the written parts.
        parts (Parts, optional): By default those of ``detector``.

    Raises:
        ValueError: If it is no detector of images, or has an operator that
            ONNX does not have.
    """

    def __init__(
        self, detector: nn.Module, parts: Parts | None = None
    ) -> None:
        super().__init__()
        self.parts = parts or parts_of(detector)
        self.detector = self.parts.of(detector)
        check_modules(self.detector)
        self.graph_nms: nn.Module | None = None

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self.outputs(images)
        if self.graph_nms is not None:
            outputs = self.graph_nms(outputs)
        return flatten(outputs)

    def outputs(self, images: Tensor) -> Any:
        """The outputs, nested as :meth:`.Parts.outputs` gives them."""
        return self.parts.outputs(self.detector, images)
