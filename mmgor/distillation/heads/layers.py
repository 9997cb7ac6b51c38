"""KD head for all layers: from the float form of the student itself."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmgor.distillation.losses.layers import relative_error
from mmgor.distillation.recorder import LAYER_INPUTS, Recorded
from mmgor.distillation.teachers.forward import recorded_parts
from mmgor.distillation.teachers.teacher import Teacher
from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS

from .base import BaseKDHead


@MODELS.register_module()
class LayerKDHead(BaseKDHead):
    """Distils what every quantized layer reads.

    The loss is the mean over the layers of

        sum (s - t)^2 / sum (t - mean_c t)^2

    with the layer's input s in the student and t in the teacher; mean_c is
    the mean of a channel over the batch. So each layer counts the same,
    whatever its size and unit. It is 1 for a student that knows the
    channels' means alone.

    The teacher is the student's own network in float, as in block-wise
    reconstruction (BRECQ, Li et al., ICLR 2021). Unlike there, all layers
    learn at once, from the student's own inputs, and the errors of deep
    layers reach the shallow ones.

    Convolutions and linear layers count. Those whose input has no gradient
    are left out: the first one, and those in frozen stages. So are the heads
    of a DETR, which run on queries, and RoI heads. The log says how many
    are left.

    Args:
        teacher (str, optional): Name of the teacher. May be left out if there
            is only one.
        loss_weight (float): Factor of this head's loss, > 0.

    Raises:
        ValueError: If the teacher lacks a layer of the student, or the two
            have other channels.
    """

    special_tap = LAYER_INPUTS

    def __init__(
        self, teacher: str | None = None, loss_weight: float = 1.0
    ) -> None:
        super().__init__(LAYER_INPUTS, LAYER_INPUTS, teacher, loss_weight)
        self.layers: list[str] = []
        self._told = False

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        parts = recorded_parts(teacher.model)
        mine = {
            name: layer
            for name, layer in quantized_layers(student).items()
            if name.partition('.')[0] in parts
        }
        theirs = dict(teacher.model.named_modules())
        apart = [
            name
            for name, layer in mine.items()
            if _read_channels(layer) != _read_channels(theirs.get(name))
        ]
        if apart or not mine:
            raise ValueError(
                f'{type(self).__name__} compares layers of the same name; '
                f'{len(apart)} of the {len(mine)} quantized layers of the '
                f'student are not in teacher {teacher.name!r}, or read '
                f'other channels there: {apart[:3]}. Expected the student in '
                'float as the teacher; from another network, use a '
                'FeatureKDHead.'
            )
        self.layers = list(mine)

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        mine, theirs = student.output, teachers[0].output
        errors = []
        for name in self.layers:
            if name not in mine or name not in theirs:
                continue
            inputs = list(zip(mine[name], theirs[name], strict=True))
            if not all(s.requires_grad for s, _ in inputs):
                continue
            layer = student.module.get_submodule(name)
            axis = -1 if isinstance(layer, nn.Linear) else 1
            with torch.autocast(inputs[0][0].device.type, enabled=False):
                errors.append(relative_error(inputs, axis))
        self._tell(len(errors))
        return torch.stack(errors).mean()

    def _tell(self, count: int) -> None:
        """Log once how many layers are compared."""
        if not count:
            raise ValueError(
                f'{type(self).__name__}: no layer of the student reads '
                'something that has a gradient and that its teacher '
                f'{self.teachers[0]!r} has, too; expected some. Lower '
                'frozen_stages, or use a FeatureKDHead.'
            )
        if not self._told:
            print_log(
                f'LayerKDHead compares what {count} of '
                f'{len(self.layers)} quantized layers read.',
                'current',
            )
        self._told = True


def _read_channels(layer: Any) -> tuple[int, ...] | None:
    """Input channels of a layer, and its kernel; None without a weight."""
    weight = getattr(layer, 'weight', None)
    return None if weight is None else tuple(weight.shape[1:])
