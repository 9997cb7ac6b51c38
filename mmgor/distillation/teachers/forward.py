"""The forward pass of a teacher: features, tapped heads, detections.

:class:`~.teacher.Teacher` calls these functions. They know nothing of its
files, of classes or of how the student's images were normalised.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.structures import DetDataSample
from torch import Tensor
from torch.utils._pytree import tree_map_only

#: Modules that run on the features. They run only if a tap is inside them.
HEADS = ('bbox_head', 'rpn_head')


def float32_features(form: Any, model: Any, inputs: Tensor) -> Any:
    """Run ``extract_feat`` in a form and return float32 features.

    For all that makes detections of them: NMS and RoI pooling have no
    half-precision kernels and do not know channels-last memory, and boxes
    need more digits than half precision has.

    Args:
        form (Form): Of the detector.
        model (nn.Module): The detector.
        inputs (Tensor): Normalised images, shape (N, C, H, W).

    Returns:
        Any: What ``extract_feat`` returns, with float32 tensors.
    """
    with form.autocast(inputs.device):
        features = features_of(form, model, inputs)
    return float32_copy(features)


def features_of(form: Any, model: Any, inputs: Tensor) -> Any:
    """What ``extract_feat`` of a detector's class returns; see
    :func:`float32_features`."""
    return type(model).extract_feat(model, form.inputs(inputs))


def dense_outputs(
    form: Any, model: Any, inputs: Tensor, heads: Sequence[str]
) -> list:
    """The features, and the outputs of heads that run on them.

    Args:
        form (Form): Of the detector.
        model (nn.Module): The detector.
        inputs (Tensor): Normalised images, shape (N, C, H, W).
        heads (Sequence[str]): Some of :data:`HEADS`.
    """
    with torch.no_grad(), form.autocast(inputs.device):
        features = features_of(form, model, inputs)
        return [features, *(getattr(model, name)(features) for name in heads)]


def run_tapped_heads(
    name: str, model: Any, features: Any, paths: Sequence[str]
) -> None:
    """Call every head that has a tap inside; a recorder keeps the outputs.

    Args:
        name (str): Name of the teacher, for the message.
        model (nn.Module): The detector.
        features (Sequence[Tensor]): Output of its ``extract_feat``.
        paths (Sequence[str]): Module paths of the taps.

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


def tapped_heads(paths: Sequence[str]) -> list[str]:
    """Those of :data:`HEADS` that have a tap inside."""
    tops = {path.partition('.')[0] for path in paths}
    return [name for name in HEADS if name in tops]


def unlabelled_samples(data_samples: list, size: tuple[int, int]) -> list:
    """Samples with what post-processing reads, and no ground truth.

    Args:
        data_samples (list[DetDataSample]): N samples with ``img_shape``.
        size (tuple[int, int]): Height and width of the batch in pixels.

    Returns:
        list[DetDataSample]: N new samples. Their scale factor is 1, so that
        boxes come out in pixels of the batch.
    """
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


def in_original_image(boxes: Tensor, meta: dict[str, Any]) -> Tensor:
    """Boxes in pixels of the original image instead of the batch.

    Args:
        boxes (Tensor): x1, y1, x2, y2, shape (n, 4).
        meta (dict): ``scale_factor`` (x, y), ``ori_shape`` and ``pad_param``
            (rows above and below, columns left and right of the image), as
            MMYOLO's LetterResize sets it.

    Returns:
        Tensor: Shape (n, 4), inside of the image.
    """
    top, _, left, _ = (float(side) for side in meta['pad_param'])
    height, width = meta['ori_shape'][:2]
    corner = boxes.new_tensor([left, top]).repeat(2)
    scale = boxes.new_tensor(meta['scale_factor']).repeat(2)
    limit = boxes.new_tensor([width, height]).repeat(2)
    return ((boxes - corner) / scale).clamp(min=0).minimum(limit)


def float32_copy(output: Any) -> Any:
    """Copy the floating-point tensors of an output as float32.

    Args:
        output (Any): A tensor, or tuples (named ones too), lists and dicts
            of tensors, however nested.

    Returns:
        Any: The same structure. Integer and bool tensors, and all that is
        not a tensor, are passed on as they are.
    """
    return tree_map_only(Tensor, _float32_copy, output)


def _float32_copy(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(
        torch.float32, copy=True, memory_format=torch.contiguous_format
    )
