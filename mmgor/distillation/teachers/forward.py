"""What running a teacher takes besides the teacher."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.structures import DetDataSample
from torch import Tensor, nn

#: Parts that run on the features; a tap inside makes them run.
HEADS = ('bbox_head', 'rpn_head')


def features_in(dtype: torch.dtype, model: Any, inputs: Tensor) -> Any:
    """``extract_feat`` under autocast, its results in float32: NMS and RoI
    pooling have no half precision, and boxes need the digits."""
    with torch.autocast(inputs.device.type, dtype):
        features = type(model).extract_feat(model, inputs)
    return float_copy(features)


def run_heads(
    name: str, model: Any, features: Any, paths: Sequence[str]
) -> None:
    """Call the heads that taps are in.

    Args:
        name (str): The teacher's, for the message.
        model (nn.Module): The detector.
        features (Sequence[Tensor]): What its ``extract_feat`` gives.
        paths (Sequence[str]): Of the taps.

    Raises:
        ValueError: If a tap is in the head of a DETR.
    """
    for head in HEADS:
        inside = [path for path in paths if path.split('.')[0] == head]
        if inside and isinstance(model, DetectionTransformer):
            raise ValueError(
                f'the {head} of teacher {name!r} ({type(model).__name__}) '
                'runs on the queries of a decoder, not on features; expected '
                f"a tap in its 'backbone' or 'neck', got {inside}. Set "
                "teacher_tap='neck', or use a DetectionKDHead."
            )
        if inside:
            getattr(model, head)(features)


def num_classes(model: Any) -> int | None:
    """Foreground classes of a detector's box head, where it tells."""
    head = getattr(model, 'bbox_head', None)
    if head is None:
        head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    if isinstance(head, nn.ModuleList):  # a cascade
        head = head[-1]
    return getattr(head, 'num_classes', None)


def bare_samples(data_samples: list, size: tuple[int, int]) -> list:
    """What post-processing reads: picture and batch shape, no labels."""
    samples = []
    for sample in data_samples:
        shape = tuple(sample.metainfo['img_shape'][:2])
        meta = dict(
            img_shape=shape,
            ori_shape=shape,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        )
        samples.append(DetDataSample(metainfo=meta))
    return samples


def float_copy(output: Any) -> Any:
    """Floating-point tensors, however nested, as float32 of their own."""
    if isinstance(output, Tensor):
        floating = output.is_floating_point()
        return output.to(torch.float32, copy=True) if floating else output
    if isinstance(output, (list, tuple)):
        return type(output)(float_copy(part) for part in output)
    return output
