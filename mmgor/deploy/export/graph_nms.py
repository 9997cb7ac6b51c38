"""Graph NMS: decoding and non-maximum suppression inside an exported graph.

``mmgor.dense_heads`` reads scores and boxes of the head. This module adds
clipping, YOLOX's rule of one class per location, and the selection. The
selection is a custom operator in PyTorch and ``NonMaxSuppression`` in ONNX.
"""

from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import GFLHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

from mmgor.dense_heads.boxes import box_outputs, decode_boxes, level_priors
from mmgor.dense_heads.levels import in_rows
from mmgor.dense_heads.scores import class_probabilities, score_outputs
from mmgor.dense_heads.spec import head_spec, head_strides

NAMES = ['boxes', 'scores', 'labels']


@torch.library.custom_op('mmgor::select_detections', mutates_args=())
def select_detections(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best detections after non-maximum suppression in each class.

    Args:
        boxes (Tensor): x1, y1, x2, y2 in pixels, shape (1, N, 4).
        scores (Tensor): Shape (1, N, classes).
        iou_threshold (float): Of two boxes of one class with a larger IoU,
            the one with the lower score is suppressed.
        score_threshold (float): Only higher scores count.
        count (int): Largest number of detections.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Boxes (D, 4), scores (D, ) in
        descending order, and labels (D, ), int64.
    """
    index, labels = (scores[0] > score_threshold).nonzero(as_tuple=True)
    kept = scores[0][index, labels]
    if len(kept) == 0:  # batched_nms has no empty case
        return boxes[0][index], kept, labels
    found, chosen = batched_nms(
        boxes[0][index], kept, labels, dict(iou_threshold=iou_threshold)
    )
    chosen = chosen[:count]
    return boxes[0][index[chosen]], found[:count, 4].clone(), labels[chosen]


@select_detections.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    return (
        boxes.new_empty(size, 4),
        scores.new_empty(size),
        scores.new_empty(size, dtype=torch.int64),
    )


def write_select_detections(op: Any) -> Any:
    """The ONNX translation of :func:`select_detections`.

    Args:
        op (Any): The onnxscript opset, which writes the nodes.

    Returns:
        Callable: Writes the operator for the arguments given to it.
    """

    def write(
        boxes: Any,
        scores: Any,
        iou_threshold: float,
        score_threshold: float,
        count: int,
    ) -> Any:
        limit = op.Constant(value_ints=[count])
        selected = op.NonMaxSuppression(
            boxes,
            op.Transpose(scores, perm=[0, 2, 1]),
            limit,
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )
        # Columns: image, class, box.
        first = op.Constant(value_ints=[0])
        last = op.Constant(value_ints=[1])
        labels = op.Gather(selected, op.Constant(value_int=1), axis=1)
        index = op.Gather(selected, op.Constant(value_int=2), axis=1)
        places = op.Concat(
            op.Unsqueeze(index, last), op.Unsqueeze(labels, last), axis=1
        )
        found = op.GatherND(op.Squeeze(scores, first), places)
        top, order = op.TopK(found, op.Min(op.Shape(found), limit))
        chosen = op.Gather(index, order)
        return (
            op.Gather(op.Squeeze(boxes, first), chosen),
            top,
            op.Gather(labels, order),
        )

    return write


class GraphNMS(nn.Module):
    """Turns what a dense head gives for one image into detections.

    It does what mmdet's ``predict_by_feat`` does, with three differences:
    candidates are not cut to ``nms_pre`` per level, boxes are clipped to the
    padded image (where mmdet clips them at all), and boxes without area are
    not dropped.

    Args:
        head (nn.Module): mmdet's dense head, in evaluation mode.
        shape (tuple[int, int]): Height and width of the padded image.
        outputs (Any): What the head gives for an image of this shape.

    Raises:
        ValueError: If the graph cannot do what the head or its ``test_cfg``
            asks for, or if the head cannot be read.
    """

    priors: Tensor
    strides: Tensor
    corner: Tensor

    def __init__(
        self, head: Any, shape: tuple[int, int], outputs: Any
    ) -> None:
        super().__init__()
        _check_ranking(head)
        test_cfg = head.test_cfg or {}
        self.iou_threshold = _iou_threshold(test_cfg)
        self.score_threshold = float(test_cfg.get('score_thr', 0))
        # Outside the module tree: the network owns it.
        self.head = [head]
        raw = box_outputs(head, outputs)
        priors = level_priors(head, raw)
        strides = [
            p.new_full((len(p), 1), stride)
            for p, stride in zip(priors, head_strides(head))
        ]
        self.register_buffer('priors', torch.cat(priors))
        self.register_buffer('strides', torch.cat(strides))
        self.register_buffer('corner', raw[0].new_tensor(shape[::-1] * 2))
        self.count = int(test_cfg.get('max_per_img', len(self.priors)))
        # What cannot be read is refused here, not while a graph is traced.
        self._boxes(outputs)
        self._scores(outputs)

    def forward(self, outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return select_detections(
            self._boxes(outputs),
            self._scores(outputs),
            self.iou_threshold,
            self.score_threshold,
            self.count,
        )

    def _boxes(self, outputs: Any) -> Tensor:
        """The decoded boxes in pixels, shape (1, M, 4)."""
        (head,) = self.head
        (raw,) = in_rows(box_outputs(head, outputs))
        boxes = decode_boxes(head, raw, self.priors, self.strides)
        # YOLOX has no coder, and mmdet does not clip its boxes.
        coder = getattr(head, 'bbox_coder', None)
        if getattr(coder, 'clip_border', False):
            boxes = boxes.clamp(min=0).minimum(self.corner)
        return boxes[None]

    def _scores(self, outputs: Any) -> Tensor:
        """The scores that rank the boxes, shape (1, M, classes)."""
        (head,) = self.head
        classes, factors = score_outputs(head, outputs)
        spec = head_spec(head, allow_activated=True)
        scores = class_probabilities(in_rows(classes), spec)
        if isinstance(head, YOLOXHead):  # keeps a location's best class only
            scores = scores * (scores == scores.amax(-1, keepdim=True))
        if factors is None:
            return scores
        return scores * in_rows(factors).sigmoid()


def _iou_threshold(test_cfg: dict[str, Any]) -> float:
    """The IoU threshold of ``test_cfg.nms``.

    Raises:
        ValueError: If ``test_cfg`` asks for what the graph cannot do.
    """
    nms = dict(test_cfg.get('nms') or {})
    # Settings of 0 or False are off.
    others = {k for k, v in nms.items() if v} - {'type', 'iou_threshold'}
    small = test_cfg.get('min_bbox_size', 0)
    if (
        nms.get('type', 'nms') != 'nms'
        or 'iou_threshold' not in nms
        or others
        or small > 0
    ):
        raise ValueError(
            "nms in the graph expected test_cfg.nms=dict(type='nms', "
            'iou_threshold=...) with these two keys only and no min_bbox_size '
            f'above 0, got nms={nms}, min_bbox_size={small}. Export without '
            'nms: detections then come from mmdet.'
        )
    return float(nms['iou_threshold'])


def _check_ranking(head: Any) -> None:
    """Make sure that the graph ranks and selects boxes as the head does."""
    cls: Any = type(head)
    names = ('predict_by_feat', '_predict_by_feat_single')
    own = [getattr(cls, name, None) for name in names]
    if not any(
        own == [getattr(known, name, None) for name in names]
        for known in (BaseDenseHead, GFLHead, YOLOXHead)
    ):
        raise ValueError(
            'nms in the graph expected a head that decodes as BaseDenseHead, '
            f'GFLHead or YOLOXHead do, got {cls.__name__} with a way of its '
            'own. Export without nms: detections then come from mmdet.'
        )
