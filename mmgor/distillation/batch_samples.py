"""The samples of a batch, in the one form that teachers and KD heads read.

mmdet's loaders give a list of samples. MMYOLO's ``yolov5_collate`` gives one
table of all boxes instead, which its heads read without a loop.
"""

from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor


def as_samples(batch: Any) -> list[Any]:
    """The samples of a preprocessed batch.

    Args:
        batch (list[DetDataSample] | dict): A list is returned as it is. A
            dict has ``bboxes_labels``, shape (n, 6), whose rows are the index
            of an image, its label, x1, y1, x2, y2 in pixels; and
            ``img_metas``, N dicts with ``batch_input_shape``. The images of
            such a batch fill it: padding is part of them.

    Returns:
        list[DetDataSample]: N samples with ``img_shape`` and copies of their
        ``gt_instances`` (some of MMYOLO's losses write into the table).
    """
    if not isinstance(batch, dict):
        return batch
    metas, table = batch['img_metas'], batch['bboxes_labels'].clone()
    # Rows come image by image. Only this waits for the device.
    counts = table[:, 0].long().bincount(minlength=len(metas)).tolist()
    samples = []
    for meta, rows in zip(metas, table.split(counts)):
        shape = tuple(meta['batch_input_shape'])
        sample = DetDataSample(metainfo={'img_shape': shape, **meta})
        sample.gt_instances = InstanceData(
            bboxes=rows[:, 2:], labels=rows[:, 1].long()
        )
        samples.append(sample)
    return samples


def as_table(instances: list[InstanceData]) -> Tensor:
    """Boxes of N images as one table; the inverse of :func:`as_samples`.

    Args:
        instances (list[InstanceData]): N, with ``bboxes`` and ``labels``.

    Returns:
        Tensor: Shape (n, 6): image, label, x1, y1, x2, y2.
    """
    rows = []
    for i, found in enumerate(instances):
        labels = found.labels[:, None].to(found.bboxes)
        rows.append(torch.cat([labels.new_full(labels.shape, i), labels], 1))
    boxes = torch.cat([found.bboxes for found in instances])
    return torch.cat([torch.cat(rows), boxes], 1)
