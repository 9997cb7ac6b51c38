"""Decoding and non-maximum suppression as part of the graph."""

from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import GFLHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

NAMES = ['boxes', 'scores', 'labels']


@torch.library.custom_op('mmgor::select_detections', mutates_args=())
def select_detections(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best detections after suppression in each class.

    Args:
        boxes (Tensor): Corners in pixels, shape (1, N, 4).
        scores (Tensor): Shape (1, N, classes).
        iou_threshold (float): Of two boxes of one class that overlap more,
            the one of lower score goes.
        score_threshold (float): Scores must exceed it.
        count (int): Detections at most.

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
        op (Any): Writes the nodes.
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
        # Columns: picture, class, box.
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


class Detections(nn.Module):
    """What a dense head gives of one image, as detections.

    As mmdet's ``predict_by_feat`` does, with three differences: candidates
    are not cut to ``nms_pre`` a level, boxes are clipped to the padded image
    and boxes without area are not dropped.

    Args:
        head (nn.Module): mmdet's dense head.
        shape (tuple[int, int]): Height and width of the padded image.
        sizes (list[tuple[int, int]]): Height and width of each level's map.

    Raises:
        ValueError: If the head or its NMS is of another kind, or its
            ``test_cfg`` has what the graph would leave out.
    """

    def __init__(
        self,
        head: Any,
        shape: tuple[int, int],
        sizes: list[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.kind = _kind(head)
        test_cfg = head.test_cfg or {}
        self.iou_threshold = _iou_threshold(test_cfg)
        self.score_threshold = float(test_cfg.get('score_thr', 0))
        self.shape = shape
        # Outside the module tree: the network owns it.
        self.head = [head]
        yolox = self.kind is YOLOXHead
        priors = head.prior_generator.grid_priors(
            sizes, device='cpu', **(dict(with_stride=True) if yolox else {})
        )
        for level, values in enumerate(priors):
            self.register_buffer(f'priors_{level}', values)
        every = sum(len(values) for values in priors)
        self.count = int(test_cfg.get('max_per_img', every))

    def forward(self, outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        readers: dict[Any, Any] = {GFLHead: self._gfl, YOLOXHead: self._yolox}
        boxes, scores = readers.get(self.kind, self._plain)(*outputs)
        return select_detections(
            boxes,
            scores,
            self.iou_threshold,
            self.score_threshold,
            self.count,
        )

    def _priors(self) -> Tensor:
        return torch.cat(list(self.buffers()))

    def _plain(
        self,
        scores: list[Tensor],
        boxes: list[Tensor],
        factors: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        (head,) = self.head
        found = _rows(scores, head.cls_out_channels)
        found = (
            found.sigmoid()
            if head.use_sigmoid_cls
            else found.softmax(-1)[..., :-1]
        )
        if factors is not None:
            found = found * _rows(factors, 1).sigmoid()
        deltas = _rows(boxes, head.bbox_coder.encode_size)[0]
        decoded = head.bbox_coder.decode(
            self._priors(), deltas, max_shape=self.shape
        )
        return decoded[None], found

    def _gfl(
        self, scores: list[Tensor], boxes: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        (head,) = self.head
        distances = [
            head.integral(level.permute(0, 2, 3, 1)[0]) * stride[0]
            for level, stride in zip(boxes, head.prior_generator.strides)
        ]
        decoded = head.bbox_coder.decode(
            head.anchor_center(self._priors()),
            torch.cat(distances),
            max_shape=self.shape,
        )
        return decoded[None], _rows(scores, head.cls_out_channels).sigmoid()

    def _yolox(
        self,
        scores: list[Tensor],
        boxes: list[Tensor],
        objectness: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        (head,) = self.head
        decoded = head._bbox_decode(self._priors(), _rows(boxes, 4))
        found = _rows(scores, head.cls_out_channels).sigmoid()
        # Only the best class of a location.
        found = found * (found == found.amax(-1, keepdim=True))
        return decoded, found * _rows(objectness, 1).sigmoid()


def _iou_threshold(test_cfg: dict[str, Any]) -> float:
    """That of ``test_cfg.nms``, if the graph can do all else that it says."""
    nms = dict(test_cfg.get('nms') or {})
    # What is 0 or False is off.
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
            'iou_threshold=...) with both keys alone and no min_bbox_size '
            f'above 0, got nms={nms}, min_bbox_size={small}. Export without '
            'it: detections then come from mmdet.'
        )
    return float(nms['iou_threshold'])


def _rows(levels: list[Tensor], width: int) -> Tensor:
    """(1, A * width, H, W) of each level to (1, all places, width)."""
    rows = [
        level.permute(0, 2, 3, 1).reshape(1, -1, width) for level in levels
    ]
    return torch.cat(rows, 1)


def _kind(head: Any) -> Any:
    """The class whose way of decoding a head has."""
    cls: Any = type(head)
    names = ('predict_by_feat', '_predict_by_feat_single')
    for kind in (BaseDenseHead, GFLHead, YOLOXHead):
        own = [getattr(cls, name, None) for name in names]
        if own == [getattr(kind, name, None) for name in names]:
            return kind
    raise ValueError(
        f'nms in the graph expected a head that decodes as BaseDenseHead, '
        f'GFLHead or YOLOXHead do, got {cls.__name__} with a way of its '
        'own. Export without it: detections then come from mmdet.'
    )
