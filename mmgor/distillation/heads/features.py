"""KD head for feature maps, e.g. those of a neck."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.dense_heads.levels import (
    as_list,
    check_strides,
    crop_to_common,
    map_strides,
    pick_strides,
)
from mmgor.distillation.recorder import Recorded
from mmgor.io.config_values import integer, integers
from mmgor.registry import MODELS, find, naming_typos

from .base import BaseKDHead
from .connectors import Connectors


@MODELS.register_module()
class FeatureKDHead(BaseKDHead):
    """Distils feature maps, whose levels are matched by stride.

    Args:
        student_channels (int | list[int]): Channels of the student's maps,
            one number for all levels or one per level.
        teacher_channels (int | list[int], optional): The same for the
            teacher's maps. Where the two differ, a 1x1 convolution brings
            the student's map to the teacher's channels. Default: equal.
        strides (list[int]): Strides of the levels to compare, which both
            sides must have. Default: the five of an FPN.
        loss (dict): Registered feature loss, built once per level. A loss
            with the attribute ``needs_channels`` gets the teacher's channels
            of its level. Default: PKDLoss.
        **kwargs: Arguments of :class:`BaseKDHead`.

    Raises:
        ValueError: If channels and strides do not fit, or if the loss does
            not compare feature maps.
    """

    def __init__(
        self,
        student_channels: int | list[int],
        teacher_channels: int | list[int] | None = None,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        loss: dict | None = None,
        student_tap: str = 'neck',
        teacher_tap: str = 'neck',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, teacher_tap, **kwargs)
        self.strides = _checked(strides)
        student = _per_level(student_channels, self.strides, 'student')
        teacher = (
            student
            if teacher_channels is None
            else _per_level(teacher_channels, self.strides, 'teacher')
        )
        self.student_channels = student
        self.teacher_channels = teacher
        self.connectors = Connectors(student, teacher)
        self.losses = nn.ModuleList(
            _build_loss(dict(type='PKDLoss') if loss is None else loss, count)
            for count in teacher
        )

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        mine = self._pick(student, 'student')
        theirs = self._pick(teachers[0], 'teacher')
        losses = []
        sizes = [student.size, teachers[0].size]
        levels = zip(self.strides, self.losses, self.connectors(mine), theirs)
        for stride, loss, *pair in levels:
            s, t = crop_to_common(pair, sizes, stride, self.teachers)
            # Operators inside the losses may run in low precision otherwise.
            with torch.autocast(s.device.type, enabled=False):
                losses.append(loss(s.float(), t.float()))
        return torch.stack(losses).mean()

    def _pick(self, recorded: Recorded, side: str) -> list[Tensor]:
        owner = side if side == 'student' else f'teacher {self.teachers[0]!r}'
        maps = as_list(recorded.output)
        if any(getattr(x, 'ndim', None) != 4 for x in maps):
            raise ValueError(
                f'the tap of the {owner} does not give feature maps; expected '
                "tensors of shape (N, C, H, W), as from 'neck' or 'backbone'."
            )
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        strides = map_strides(recorded.size, shapes)
        check_strides(strides, self.strides, owner)
        picked = pick_strides(maps, strides, self.strides)
        channels = [x.shape[1] for x in picked]
        expected = getattr(self, f'{side}_channels')
        if channels != expected:
            raise ValueError(
                f'the levels of strides {self.strides} of the {owner} have '
                f'{channels} channels, expected {expected}. Set '
                f'{side}_channels={channels}.'
            )
        return picked


def _build_loss(loss: dict, channels: int) -> nn.Module:
    found = find(loss.get('type')) if isinstance(loss, dict) else None
    forward = getattr(found, 'forward', nn.Module.forward)
    if forward is nn.Module.forward:
        raise ValueError(
            f'loss={loss!r} does not compare feature maps; expected PKDLoss, '
            'CWDLoss, FeatureMSELoss, AttentionTransferLoss, MGDLoss, '
            "ACAMLoss or ResidualLoss, e.g. loss=dict(type='PKDLoss')."
        )
    if getattr(found, 'needs_channels', False):
        loss = dict(channels=channels, **loss)
    with naming_typos(found):
        return MODELS.build(dict(loss, type=found))


def _checked(strides: Any) -> list[int]:
    given = integers('strides', strides, 1, '[8, 16, 32]')
    powers = all(s & (s - 1) == 0 for s in given)
    if not powers or len(set(given)) < len(given):
        raise ValueError(
            f'strides={strides!r}; expected different powers of two, e.g. '
            'strides=[8, 16, 32].'
        )
    return given


def _per_level(channels: Any, strides: list[int], side: str) -> list[int]:
    name = f'{side}_channels'
    if not isinstance(channels, (list, tuple)):
        return [integer(name, channels, 1)] * len(strides)
    if len(channels) != len(strides):
        raise ValueError(
            f'{name} has {len(channels)} entries for {len(strides)} strides; '
            'expected one entry per stride.'
        )
    return integers(name, channels, 1, '[256, 256, 256]')
