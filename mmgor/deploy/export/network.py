"""``Network``: the part of a detector that is exported."""

from typing import Any

from torch import Tensor, nn

from mmgor.deploy.head_outputs import flatten

from .compiled_ops import check_modules


class Network(nn.Module):
    """Backbone, neck and head of a single-stage detector.

    It takes images and gives the outputs of the head as a flat list, or
    detections if it has ``graph_nms``.

    Args:
        detector (nn.Module): With ``bbox_head``.

    Raises:
        ValueError: If it is not a single-stage detector, or has an operator
            that ONNX does not have.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        more = hasattr(detector, 'encoder') or hasattr(detector, 'mask_head')
        if more or not hasattr(detector, 'bbox_head'):
            raise ValueError(
                f'{type(detector).__name__} has stages that are not '
                'exported (a RoI head, a mask head or a transformer); '
                'expected a single-stage detector with a dense bbox_head, '
                'such as RetinaNet, FCOS, ATSS, GFL, YOLOX, YOLOF, YOLOV3 or '
                'RTMDet.'
            )
        check_modules(detector)
        self.detector = detector
        self.graph_nms: nn.Module | None = None

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self.outputs(images)
        if self.graph_nms is not None:
            outputs = self.graph_nms(outputs)
        return flatten(outputs)

    def outputs(self, images: Tensor) -> Any:
        """The outputs of the head, nested as it gives them."""
        detector: Any = self.detector
        return detector.bbox_head(detector.extract_feat(images))
