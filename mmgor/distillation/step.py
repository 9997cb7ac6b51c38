"""The distillation step: all teachers and KD heads on one batch."""

from typing import Any

import torch
from torch import Tensor, nn

from mmgor.distillation.teachers.collection import Teachers
from mmgor.distillation.teachers.teacher import Teacher

from .recorder import Recorded


def kd_losses(
    heads: dict[str, Any],
    teachers: Teachers,
    student: dict[str, Recorded],
    inputs: Tensor,
    preprocessor: nn.Module,
) -> dict[str, Tensor]:
    """Run the teachers one after the other, and every KD head once.

    A head runs as soon as all its teachers have run. So the outputs of a
    teacher are freed before the next one runs, unless they are fused.

    Args:
        heads (dict): Name -> bound KD head.
        teachers (Teachers): Built teachers.
        student (dict[str, Recorded]): Tap -> the student's output.
        inputs (Tensor): The student's input, shape (N, C, H, W).
        preprocessor (nn.Module): The student's data_preprocessor.

    Returns:
        dict[str, Tensor]: ``loss_kd_<name>`` -> scalar, in the order of
        ``heads``.
    """
    losses: dict[str, Tensor] = {}
    waiting: dict[str, dict[str, Recorded]] = {key: {} for key in heads}
    samples = next(iter(student.values())).data_samples
    for same_model, tap_names in _models(heads, teachers):
        outputs = same_model[0].forward_taps(
            inputs, preprocessor, samples, tap_names
        )
        new = {teacher.name for teacher in same_model}
        for key, head in heads.items():
            ready, mine = waiting[key], new.intersection(head.teachers)
            if not mine:
                continue
            ready.update(dict.fromkeys(mine, outputs[head.teacher_tap]))
            if len(ready) == len(head.teachers):
                losses[key] = head(
                    student[head.student_tap],
                    [ready.pop(name) for name in head.teachers],
                )
        del outputs
    return {f'loss_kd_{key}': losses[key] for key in heads}


def _models(
    heads: dict[str, Any], teachers: Teachers
) -> list[tuple[list[Teacher], set[str]]]:
    """Group the teachers by their model, with all taps of each group."""
    groups: dict[int, tuple[list[Teacher], set[str]]] = {}
    for name, teacher in teachers.items():
        group = groups.setdefault(id(teacher.model), ([], set()))
        group[0].append(teacher)
        group[1].update(
            head.teacher_tap
            for head in heads.values()
            if name in head.teachers
        )
    return list(groups.values())


def by_teacher(
    heads: dict[str, Any], kd: dict[str, Tensor], w_kd: Tensor
) -> dict[str, Tensor]:
    """Values per teacher, for the log.

    Args:
        heads (dict): Name -> KD head, after its call.
        kd (dict[str, Tensor]): From :func:`kd_losses`.
        w_kd (Tensor): Weight of the distillation loss, a scalar.

    Returns:
        dict[str, Tensor]: ``gor_w_kd_<teacher>`` is w_kd times the teacher's
        share, as the mean over its KD heads. ``gor_raw_kd_<teacher>`` is the
        loss against this teacher alone, as the sum over its KD heads; fused
        detections have no such loss.
    """
    values: dict[str, Tensor] = {}
    for name in {n: None for head in heads.values() for n in head.teachers}:
        mine = [(k, h) for k, h in heads.items() if name in h.teachers]
        shares = [h.shares.get(name, w_kd.new_ones(())) for _, h in mine]
        share = torch.stack([s.to(w_kd) for s in shares]).mean()
        values[f'gor_w_kd_{name}'] = w_kd * share
        raw = [
            kd[f'loss_kd_{k}'].detach()
            if len(h.teachers) == 1
            else h.teacher_losses[name]
            for k, h in mine
            if len(h.teachers) == 1 or name in h.teacher_losses
        ]
        if raw:
            values[f'gor_raw_kd_{name}'] = torch.stack(raw).sum()
    return values
