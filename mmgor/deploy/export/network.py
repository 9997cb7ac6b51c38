"""``Network``: the part of a detector that is exported."""

from typing import Any

from torch import Tensor, nn

from mmgor.deploy.head_outputs import flatten

from .compiled_ops import check_modules

# Parts of detectors that are not written, and why.
_NOT_WRITTEN = dict(
    roi_head='pools features of proposals, whose number differs by image',
    mask_head='gives masks',
    panoptic_head='gives masks',
    language_model='reads text',
    encoder='is a transformer',
    decoder='is a transformer',
)
_DENSE = ('backbone', 'neck', 'rpn_head', 'bbox_head')


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
        _check_parts(detector)
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


def _check_parts(detector: nn.Module) -> None:
    parts = {
        name: f'{name} ({type(part).__name__})'
        for name, part in detector.named_children()
    }
    left = [
        f'{parts[k]} {why}' for k, why in _NOT_WRITTEN.items() if k in parts
    ]
    if left or 'bbox_head' not in parts:
        dense = [parts[name] for name in _DENSE if name in parts]
        raise ValueError(
            f'{type(detector).__name__} can not be exported: '
            f'{"; ".join(left) or "it has no bbox_head"}. What could be '
            f'written gives no detections: {", ".join(dense) or "nothing"}. '
            'Expected a single-stage detector with a dense bbox_head, such '
            'as RetinaNet, FCOS, ATSS, GFL, TOOD, VFNet, RepPoints, YOLOX, '
            'YOLOF, YOLOV3 or RTMDet.'
        )
