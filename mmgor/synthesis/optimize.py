"""Images of which a network believes what it was trained on."""

import math
from collections.abc import Callable
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmgor.trial_run import buffers_kept

from .images import total_variation
from .statistics import recorded_statistics

# What the task loss is at the start, relative to that of the statistics: how
# large a detector's losses are says nothing.
_TASK = 0.5
# Adam's, in units of the range of pixels.
_RATE = 0.01

Report = Callable[[int, dict[str, float]], None]


def optimize_images(
    model: nn.Module,
    images: Tensor,
    boxes: list[Tensor],
    labels: list[Tensor],
    steps: int,
    report: Report = lambda step, losses: None,
) -> Tensor:
    """Change images until the network's statistics and labels fit.

    Three parts are minimised together by Adam. ``statistics`` is the
    distance to the batch norms' statistics (:func:`.statistics_loss`; ZeroQ,
    CVPR 2020; DeepInversion, CVPR 2020). ``task`` is the detector's own loss
    for the labels (Chawla et al., "Data-free Knowledge Distillation for
    Object Detection", WACV 2021), times a constant that makes it half as
    large as ``statistics`` at the start. ``smooth`` is the total variation.

    Args:
        model (nn.Module): A float detector of mmdet. Values of parameters and
            buffers are unchanged; it is left in evaluation mode and without
            gradients of parameters.
        images (Tensor): Where to start, from 0 to 1, BGR, shape
            (N, 3, H, W). Unchanged.
        boxes (list[Tensor]): For each image (x1, y1, x2, y2) in pixels,
            shape (n, 4).
        labels (list[Tensor]): For each image int64, shape (n,).
        steps (int): Number of steps.
        report (Callable): Called after each step with its number, from 1,
            and the value of each part before it.

    Returns:
        Tensor: The new images, from 0 to 1, shape (N, 3, H, W).

    Raises:
        ValueError: If the model has no batch norm with statistics, or its
            own loss at the start is 0 or not finite.
        FloatingPointError: If a loss is not finite.
    """
    model.eval().requires_grad_(False)
    samples = _samples(images, boxes, labels)
    device = next(model.parameters()).device
    pixels = images.to(device, copy=True).requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=_RATE, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with buffers_kept(model), recorded_statistics(model) as recorder:
        for step in range(1, steps + 1):
            recorder.forget()
            task = task_loss(model, pixels, samples)
            statistics = recorder.loss()
            if step == 1:
                _check_start(float(task.detach()))
                weight = _TASK * (statistics / task).detach()
            parts = dict(
                statistics=statistics,
                task=weight * task,
                smooth=total_variation(pixels),
            )
            loss = torch.stack([*parts.values()]).sum()
            values = {
                name: float(part.detach()) for name, part in parts.items()
            }
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f'step {step}: expected finite losses, got {values}.'
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
            report(step, values)
    return pixels.detach()


def task_loss(model: Any, pixels: Tensor, samples: list[Any]) -> Tensor:
    """The sum of a detector's losses.

    Args:
        model (nn.Module): See :func:`optimize_images`.
        pixels (Tensor): From 0 to 1, shape (N, 3, H, W).
        samples (list[DetDataSample]): With ``gt_instances``.

    Returns:
        Tensor: Shape ().
    """
    data = model.data_preprocessor(
        dict(inputs=[*(255 * pixels)], data_samples=samples), False
    )
    return model.parse_losses(model(**data, mode='loss'))[0]


def _check_start(task: float) -> None:
    if not 0 < task < math.inf:
        raise ValueError(
            "the detector's own loss of the drawn boxes: expected a finite "
            f'number above 0, got {task} before the first step. Type a config '
            'and a checkpoint that belong together, and whose detector learns '
            'from boxes.'
        )


def _samples(
    images: Tensor, boxes: list[Tensor], labels: list[Tensor]
) -> list[Any]:
    shape = tuple(images.shape[-2:])
    meta = dict(
        img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), flip=False
    )
    samples = []
    for box, label in zip(boxes, labels):
        sample: Any = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(bboxes=box, labels=label)
        sample.ignored_instances = InstanceData(
            bboxes=box[:0], labels=label[:0]
        )
        samples.append(sample)
    return samples
