"""Levels of a pyramid: their strides, and those that two models share."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

#: Strides that a detector's pyramid may have.
STRIDES = tuple(2**k for k in range(11))
#: Two maps of one stride may differ by this many rows more than their padding
#: explains: one network rounds up where the other rounds down, or convolves
#: without padding.
SLACK_ROWS = 2
#: They may also differ by any number of input pixels below this: a network may
#: round up at its coarsest stride and upsample from there (CenterNet).
SLACK_PIXELS = 32


def as_list(output: Any) -> list:
    """An output as a list of levels; a single tensor is one level."""
    return list(output) if isinstance(output, Sequence) else [output]


def in_rows(levels: Sequence[Tensor]) -> Tensor:
    """Put the anchors of all levels in a row, in the order of mmdet's priors.

    Args:
        levels (Sequence[Tensor]): One per level, shape (N, A, C, H, W).

    Returns:
        Tensor: Shape (N, M, C), with M the number of all anchors; those of
        one location follow each other.
    """
    rows = [x.permute(0, 3, 4, 1, 2).flatten(1, 3) for x in levels]
    return torch.cat(rows, 1)


def map_strides(
    size: tuple[int, int], shapes: Sequence[tuple[int, int]]
) -> list[int]:
    """Infer the strides of maps from their sizes.

    A map of stride s has size / s rows and columns, rounded up, or rounded
    down where a convolution does not pad. If several strides fit (a 1 x 1 map
    of a small image), the map gets the next one after that of the map before.

    Args:
        size (tuple[int, int]): Height and width of the detector's input.
        shapes (Sequence[tuple[int, int]]): Height and width of each map.

    Returns:
        list[int]: One stride per map, in the given order.
    """
    strides = [0] * len(shapes)
    last = 0
    for i in sorted(range(len(shapes)), key=lambda i: -shapes[i][0]):
        misfit = {s: _misfit(size, shapes[i], s) for s in STRIDES}
        best = min(misfit.values())
        fitting = [s for s in STRIDES if misfit[s] == best]
        later = [s for s in fitting if s > last]
        strides[i] = last = (later or fitting)[0]
    return strides


def _misfit(size: tuple[int, int], shape: tuple[int, int], s: int) -> int:
    up = sum(abs(-(-a // s) - b) for a, b in zip(size, shape))
    down = sum(abs(a // s - b) for a, b in zip(size, shape))
    return min(up, down)


def pick_strides(
    levels: Sequence, strides: Sequence[int], wanted: Sequence[int]
) -> list:
    """The levels of the wanted strides.

    If several levels have one stride, the last is taken: a stacked hourglass
    predicts from this one.

    Args:
        levels (Sequence): One entry per level.
        strides (Sequence[int]): Strides of the levels.
        wanted (Sequence[int]): Wanted strides, all of them in ``strides``.
    """
    by_stride = dict(zip(strides, levels))
    return [by_stride[s] for s in wanted]


def common_strides(
    student: Sequence[int], teacher: Sequence[int], teacher_name: str
) -> list[int]:
    """The strides that both sides have, in ascending order.

    Args:
        student (Sequence[int]): Strides of the student.
        teacher (Sequence[int]): Strides of the teacher.
        teacher_name (str): For the message.

    Raises:
        ValueError: If there is none; the message lists both sides.
    """
    common = sorted(set(student) & set(teacher))
    if not common:
        raise ValueError(
            f'the student has levels of strides {list(student)}, teacher '
            f'{teacher_name!r} of {list(teacher)}; expected at least one in '
            'common. Choose another teacher or other taps.'
        )
    return common


def log_shared_strides(
    head: str, student: Sequence[int], shared: Sequence[int], teachers: str
) -> None:
    """Log which of the student's levels get no KD signal, if any.

    Args:
        head (str): Type of the KD head, for the message.
        student (Sequence[int]): All strides of the student.
        shared (Sequence[int]): Strides that its teachers have, too.
        teachers (str): Names of the teachers, for the message.
    """
    if set(student) - set(shared):
        print_log(
            f'{head}: of the strides {list(student)} of the student, only '
            f'{list(shared)} are in {teachers}, too; the others get no KD '
            'signal.',
            logger='current',
        )


def check_strides(
    strides: Sequence[int], wanted: Sequence[int], owner: str
) -> None:
    """Make sure that a model has the wanted strides.

    Args:
        strides (Sequence[int]): Strides that the model has.
        wanted (Sequence[int]): Strides that it should have.
        owner (str): Which model this is, for the message.

    Raises:
        ValueError: If one is missing; the message lists those it has.
    """
    missing = [s for s in wanted if s not in strides]
    if missing:
        raise ValueError(
            f'no level of stride {missing} in the {owner}, whose tap gives '
            f'strides {list(strides)}; expected {list(wanted)}. Set strides='
            f'{[s for s in wanted if s in strides] or sorted(set(strides))}.'
        )


def crop_to_common(
    maps: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    stride: int,
    teachers: Sequence[str],
) -> list[Tensor]:
    """Crop maps of one stride to the rows and columns that all have.

    Padding to a teacher's size divisor is added at the right and at the
    bottom only, so equal indices are equal locations. This holds only if the
    maps really have the given stride. So the sizes of two maps, times the
    stride, must not differ by more than the sizes of their inputs do.

    Args:
        maps (Sequence[Tensor]): Shapes (..., H_i, W_i), the student's first.
        sizes (Sequence[tuple[int, int]]): Height and width of the input of
            each map.
        stride (int): Stride of all maps.
        teachers (Sequence[str]): Names of the teachers that the other maps
            come from, for the message.

    Returns:
        list[Tensor]: Shapes (..., H, W), with the smallest H_i and W_i.

    Raises:
        ValueError: If padding does not explain the size of a map.
    """
    shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
    for shape, size, name in zip(shapes[1:], sizes[1:], teachers):
        sides = zip(shapes[0], shape, sizes[0], size)
        excess = max(abs((b - a) * stride - (t - s)) for a, b, s, t in sides)
        if excess > SLACK_ROWS * stride and excess >= SLACK_PIXELS:
            raise ValueError(
                f'maps of stride {stride}: the student has one of size '
                f'{shapes[0]} for an input of {sizes[0]}, teacher {name!r} '
                f'one of {shape} for {size}; expected sizes that differ only '
                'by the padding of the inputs. Set the strides of both '
                "heads to those of their necks' maps."
            )
    height = min(x.shape[-2] for x in maps)
    width = min(x.shape[-1] for x in maps)
    return [x[..., :height, :width] for x in maps]
