"""KD heads: turn a student tap and a teacher tap into one loss."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .adapters import Connectors, match_size
from .losses import check_temperature
from .taps import check_tap


class BaseKDHead(nn.Module):
    """What every KD head has.

    Args:
        student_tap (str): Module path in the student.
        teacher_tap (str): Module path in the teacher.
        teacher (str, optional): Name of the teacher; the only one if there
            is one.
        loss_weight (float): Factor inside the distillation loss, > 0.

    Raises:
        ValueError: If ``loss_weight`` is not positive.
    """

    def __init__(
        self,
        student_tap: str,
        teacher_tap: str,
        teacher: str | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not loss_weight > 0:
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
        self._bound = True

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

    def bind(
        self, student: nn.Module, teacher: nn.Module, teacher_name: str
    ) -> None:
        super().bind(student, teacher, teacher_name)
        mine = _head_facts(student.get_submodule(self.student_tap))
        theirs = _head_facts(teacher.get_submodule(self.teacher_tap))
        if mine != theirs:
            raise ValueError(
                "LogitKDHead needs heads of one kind; expected the student's "
                f'{_describe(mine)}, got {_describe(theirs)} from teacher '
                f'{teacher_name!r}. Train the teacher on the same class list '
                'with the same kind of classification loss, or use a '
                'FeatureKDHead.'
            )
        self.use_sigmoid, self.num_classes = mine

    def compute(self, student_output: Any, teacher_output: Any) -> Tensor:
        student = self._pick(student_output, 'student')
        teacher = self._pick(teacher_output, f'teacher {self.teacher!r}')
        _check_shapes(student, teacher)
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
        levels = output[self.output_index]
        return [levels] if isinstance(levels, Tensor) else list(levels)


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
        self.levels = [
            (x, x) if isinstance(x, int) else tuple(x) for x in levels
        ]
        if not self.levels:
            raise ValueError('levels is empty; expected at least one.')
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
        maps = [output] if isinstance(output, Tensor) else list(output)
        picked = []
        for pair, channels in zip(self.levels, self.channels):
            level, expected = pair[side], channels[side]
            if not -len(maps) <= level < len(maps):
                raise ValueError(
                    f'level {level} does not exist: the tap of the {owner} '
                    f'gives {len(maps)} map(s), expected levels from 0 to '
                    f'{len(maps) - 1}. Set levels=[...].'
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


def _per_level(
    channels: int | Sequence[int], levels: list, name: str
) -> list[int]:
    if isinstance(channels, int):
        return [channels] * len(levels)
    if len(channels) != len(levels):
        raise ValueError(
            f'{name} has {len(channels)} entries for '
            f'{len(levels)} levels; expected as many.'
        )
    return list(channels)


def _head_facts(head: nn.Module) -> tuple[bool, int]:
    """(sigmoid or softmax, class channels an anchor) of a dense head."""
    loss = getattr(head, 'loss_cls', None)
    sigmoid = getattr(
        loss, 'use_sigmoid', getattr(head, 'use_sigmoid_cls', None)
    )
    channels = getattr(
        head, 'cls_out_channels', getattr(head, 'num_classes', None)
    )
    if sigmoid is None or channels is None:
        raise ValueError(
            f'{type(head).__name__} does not tell how it classifies; expected '
            'a dense mmdet head with loss_cls.use_sigmoid and '
            'cls_out_channels. Tap another head, or use a FeatureKDHead.'
        )
    return bool(sigmoid), int(channels)


def _describe(facts: tuple[bool, int]) -> str:
    kind = 'sigmoid' if facts[0] else 'softmax'
    return f'{kind} head with {facts[1]} class outputs'


def _check_shapes(student: list[Tensor], teacher: list[Tensor]) -> None:
    if len(student) != len(teacher):
        raise ValueError(
            f"the student's head has {len(student)} levels, the teacher's "
            f'{len(teacher)}; logit KD needs the same pyramid. Use a '
            'FeatureKDHead with levels=[...].'
        )
    for level, (s, t) in enumerate(zip(student, teacher)):
        if s.shape != t.shape:
            raise ValueError(
                f'level {level}: student logits have shape {tuple(s.shape)}, '
                f"the teacher's {tuple(t.shape)}; logit KD needs the same "
                'anchors, strides and classes.'
            )
