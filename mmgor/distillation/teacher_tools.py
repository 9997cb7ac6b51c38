"""What running a teacher takes besides the teacher."""

from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn


def features_in(dtype: torch.dtype, model: Any, inputs: Tensor) -> Any:
    """``extract_feat`` under autocast, its results in float32: NMS and RoI
    pooling have no half precision, and boxes need the digits."""
    with torch.autocast(inputs.device.type, dtype):
        features = type(model).extract_feat(model, inputs)
    return float_copy(features)


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
