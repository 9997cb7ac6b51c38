"""KD heads: turn a student tap and a teacher tap into one loss."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .adapters import Connectors, match_size
from .head_facts import (
    anchors_per_level,
    check_logits,
    check_same_shapes,
    head_facts,
)
from .losses import check_temperature
from .taps import as_list, check_tap


class BaseKDHead(nn.Module):
    """What every KD head has.

    Args:
        student_tap (str): Module path in the student.
        teacher_tap (str): Module path in the teacher.
        teacher (str, optional): Name of the teacher; the only one if there
            is one.
        loss_weight (float): Factor inside the distillation loss, > 0.

    Raises:
        ValueError: If ``loss_weight`` is not a positive number.
    """

    def __init__(
        self,
        student_tap: str,
        teacher_tap: str,
        teacher: str | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < loss_weight < float('inf'):
            raise ValueError(
                f'loss_weight must be positive, got {loss_weight}; to drop '
                'a KD head, remove it from kd_heads.'
            )
        self.student_tap = student_tap
        self.teacher_tap = teacher_tap
        self.teacher = teacher
        self.loss_weight = loss_weight
        self._bound = False

    def bind(
        self, student: nn.Module, teacher: nn.Module, teacher_name: str
    ) -> None:
        """Check both taps and read what the head needs to know, once.

        Args:
            student (nn.Module): The student detector.
            teacher (nn.Module): The built teacher.
            teacher_name (str): For messages.

        Raises:
            ValueError: If a tap does not exist or the two do not fit.
        """
        check_tap(student, self.student_tap, 'student')
        check_tap(teacher, self.teacher_tap, f'teacher {teacher_name!r}')
        self._read(student, teacher, teacher_name)
        self._bound = True

    def _read(
        self, student: nn.Module, teacher: nn.Module, teacher_name: str
    ) -> None:
        """What a subclass checks and keeps of the two models."""

    def forward(self, student_output: Any, teacher_output: Any) -> Tensor:
        """The loss, a scalar.

        Args:
            student_output: What the student's tap gave.
            teacher_output: What the teacher's tap gave, without gradient.
        """
        if not self._bound:
            raise RuntimeError(
                f'{type(self).__name__} was not bound to its teacher; '
                'expected model.init_weights() before training.'
            )
        loss = self.compute(student_output, teacher_output)
        return loss * self.loss_weight

    def compute(self, student_output: Any, teacher_output: Any) -> Tensor:
        """The loss without ``loss_weight``."""
        raise NotImplementedError


@MODELS.register_module()
class LogitKDHead(BaseKDHead):
    """Distils class logits of dense heads with the same anchors.

    Sigmoid heads: binary KD, the KL divergence of each class's Bernoulli
    distribution, summed over classes. Softmax heads: KL divergence with
    temperature (Hinton et al., 2015). Anchors are weighted by the teacher's
    foreground score to the power ``foreground_gamma``, so that the few
    objects are not drowned by background.

    Args:
        output_index (int): Which of the head's outputs holds class logits,
            a list of (N, A * K, H, W), one a level.
        temperature (float): > 0.
        foreground_gamma (float): 0 weighs all anchors the same.
        **kwargs: Of :class:`BaseKDHead`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        output_index: int = 0,
        temperature: float = 1.0,
        foreground_gamma: float = 1.0,
        student_tap: str = 'bbox_head',
        teacher_tap: str = 'bbox_head',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, teacher_tap, **kwargs)
        check_temperature(temperature)
        if foreground_gamma < 0:
            raise ValueError(
                f'foreground_gamma must be at least 0, got {foreground_gamma}.'
            )
        self.output_index = output_index
        self.temperature = temperature
        self.foreground_gamma = foreground_gamma
        self.num_classes = 0
        self.use_sigmoid = True
        self.anchors: list[int] | None = None

    def _read(
        self, student: nn.Module, teacher: nn.Module, teacher_name: str
    ) -> None:
        head = student.get_submodule(self.student_tap)
        mine = head_facts(head)
        theirs = head_facts(teacher.get_submodule(self.teacher_tap))
        if mine != theirs:
            raise ValueError(
                "LogitKDHead needs heads of one kind; expected the student's "
                f'{mine}, got {theirs} from teacher {teacher_name!r}. Train '
                'the teacher on the same class list with the same kind of '
                'classification loss, or use a FeatureKDHead.'
            )
        self.use_sigmoid = mine.use_sigmoid
        self.num_classes = mine.num_classes
        self.anchors = anchors_per_level(head)

    def compute(self, student_output: Any, teacher_output: Any) -> Tensor:
        student = self._pick(student_output, 'student')
        teacher = self._pick(teacher_output, f'teacher {self.teacher!r}')
        check_logits(
            student, self.num_classes, self.anchors, self.output_index
        )
        check_same_shapes(student, teacher)
        s, t = (
            torch.cat(
                [
                    functional.flatten_anchors(x, self.num_classes).float()
                    for x in levels
                ],
                1,
            )
            for levels in (student, teacher)
        )
        if self.use_sigmoid:
            divergence = functional.bernoulli_kl(s, t, self.temperature).sum(
                -1
            )
            scores = t.sigmoid()
        else:
            divergence = functional.categorical_kl(s, t, self.temperature)
            scores = t.softmax(-1)[..., :-1]  # mmdet: background is last
        weights = functional.foreground_weight(scores, self.foreground_gamma)
        return functional.weighted_mean(divergence, weights)

    def _pick(self, output: Any, owner: str) -> list[Tensor]:
        if not isinstance(output, Sequence) or not (
            -len(output) <= self.output_index < len(output)
        ):
            count = len(output) if isinstance(output, Sequence) else 1
            raise ValueError(
                f'output_index={self.output_index} is out of range: the head '
                f'of the {owner} has {count} output(s), expected an index '
                f'from 0 to {count - 1}.'
            )
        return as_list(output[self.output_index])


@MODELS.register_module()
class FeatureKDHead(BaseKDHead):
    """Distils feature maps, level by level.

    Args:
        student_channels (int | list[int]): Of the student's maps.
        teacher_channels (int | list[int], optional): Of the teacher's; where
            they differ a 1x1 convolution connects. Default: the same.
        levels (list, optional): Levels to use: indices of both, or pairs
            (student level, teacher level). Default: the five of an FPN.
        loss (dict): Registered feature loss; default PKDLoss.
        **kwargs: Of :class:`BaseKDHead`.

    Raises:
        ValueError: If channel lists and levels do not fit.
    """

    def __init__(
        self,
        student_channels: int | list[int],
        teacher_channels: int | list[int] | None = None,
        levels: Sequence = (0, 1, 2, 3, 4),
        loss: dict | None = None,
        student_tap: str = 'neck',
        teacher_tap: str = 'neck',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, teacher_tap, **kwargs)
        self.levels = _level_pairs(levels)
        student = _per_level(student_channels, self.levels, 'student_channels')
        teacher = (
            student
            if teacher_channels is None
            else _per_level(teacher_channels, self.levels, 'teacher_channels')
        )
        self.channels = list(zip(student, teacher))
        self.connectors = Connectors(student, teacher)
        self.loss = MODELS.build(loss or dict(type='PKDLoss'))

    def compute(self, student_output: Any, teacher_output: Any) -> Tensor:
        student = self._pick(student_output, 0, 'student')
        teacher = self._pick(teacher_output, 1, f'teacher {self.teacher!r}')
        losses = [
            self.loss(s.float(), match_size(t, s).float())
            for s, t in zip(self.connectors(student), teacher)
        ]
        return torch.stack(losses).mean()

    def _pick(self, output: Any, side: int, owner: str) -> list[Tensor]:
        maps = as_list(output)
        picked = []
        for pair, channels in zip(self.levels, self.channels):
            level, expected = pair[side], channels[side]
            if not -len(maps) <= level < len(maps):
                raise ValueError(
                    f'level {level} does not exist: the tap of the {owner} '
                    f'gives {len(maps)} map(s), expected levels from 0 to '
                    f'{len(maps) - 1}. Set levels=[...].'
                )
            if getattr(maps[level], 'ndim', None) != 4:
                raise ValueError(
                    f'level {level} of the {owner} is no feature map; '
                    'expected a tap that gives tensors of shape '
                    "(N, C, H, W), e.g. 'neck' or 'backbone'."
                )
            if maps[level].shape[1] != expected:
                key = ('student_channels', 'teacher_channels')[side]
                raise ValueError(
                    f'level {level} of the {owner} has {maps[level].shape[1]} '
                    f'channels, expected {expected}. Set {key}='
                    f'{maps[level].shape[1]}.'
                )
            picked.append(maps[level])
        return picked


def _level_pairs(levels: Any) -> list[tuple[int, int]]:
    """Indices and pairs to (student level, teacher level) pairs."""
    pairs = []
    for level in levels if isinstance(levels, Sequence) else [levels]:
        pair = tuple(level) if isinstance(level, Sequence) else (level, level)
        if len(pair) != 2 or not all(type(x) is int for x in pair):
            raise ValueError(
                f'levels={levels!r} has the entry {level!r}; expected indices '
                'or pairs (student level, teacher level), e.g. '
                'levels=[0, 1, (2, 3)].'
            )
        pairs.append(pair)
    if not pairs:
        raise ValueError('levels is empty; expected at least one.')
    return pairs


def _per_level(channels: Any, levels: list, name: str) -> list[int]:
    given = (
        list(channels)
        if isinstance(channels, Sequence) and not isinstance(channels, str)
        else [channels] * len(levels)
    )
    if len(given) != len(levels):
        raise ValueError(
            f'{name} has {len(given)} entries for {len(levels)} levels; '
            'expected as many.'
        )
    if not all(type(x) is int and x > 0 for x in given):
        raise ValueError(
            f'{name}={channels!r}; expected a positive int, or a list of '
            'them, one a level.'
        )
    return given
