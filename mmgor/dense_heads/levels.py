"""Which feature map has which stride, and the pairs that two sides share."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

#: Powers of two that a detector's pyramid may have.
STRIDES = tuple(2**k for k in range(11))
#: Rows by which two maps of one stride may differ beyond padding, since one
#: network rounds up where the other rounds down or convolves without padding.
SLACK_ROWS = 2
#: Input pixels that two maps may differ by in place of rows, exclusive, since
#: a network may round up at its coarsest stride and upsample (CenterNet).
SLACK_PIXELS = 32


def as_list(output: Any) -> list:
    """An output level by level: what is not a sequence is one level."""
    return list(output) if isinstance(output, Sequence) else [output]


def in_rows(levels: Sequence[Tensor]) -> Tensor:
    """All anchors of all levels in a row, in the order of mmdet's priors.

    Args:
        levels (Sequence[Tensor]): One per level, shape (N, A, C, H, W).

    Returns:
        Tensor: Shape (N, M, C), with the A anchors of a location in a row.
    """
    rows = [x.permute(0, 3, 4, 1, 2).flatten(1, 3) for x in levels]
    return torch.cat(rows, 1)


def map_strides(
    size: tuple[int, int], shapes: Sequence[tuple[int, int]]
) -> list[int]:
    """Strides of maps by their sizes.

    A map of stride s has size / s rows and columns, rounded up, or down where
    a convolution does not pad. Where several powers of two fit (a 1 x 1 map
    of a small picture), a map gets the next one after the map before it.

    Args:
        size (tuple[int, int]): Height and width of the detector's input.
        shapes (Sequence[tuple[int, int]]): Height and width of each map.

    Returns:
        list[int]: One a map, in the order given.
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

    Of several with one stride the last is taken, from which a stacked
    hourglass predicts.

    Args:
        levels (Sequence): One a stride.
        strides (Sequence[int]): Of the levels.
        wanted (Sequence[int]): All of them must be in ``strides``.
    """
    by_stride = dict(zip(strides, levels))
    return [by_stride[s] for s in wanted]


def common_strides(
    student: Sequence[int], teacher: Sequence[int], teacher_name: str
) -> list[int]:
    """Strides that both sides have, ascending.

    Raises:
        ValueError: If there is none, listing both sides.
    """
    common = sorted(set(student) & set(teacher))
    if not common:
        raise ValueError(
            f'the student has levels of strides {list(student)}, teacher '
            f'{teacher_name!r} of {list(teacher)}; expected at least one in '
            'common. Choose another teacher or other taps.'
        )
    return common


def tell_shared_strides(
    head: str, student: Sequence[int], shared: Sequence[int], teachers: str
) -> None:
    """Log it where not all of the student's levels are taught.

    Args:
        head (str): What teaches, for the message.
        student (Sequence[int]): All strides of the student.
        shared (Sequence[int]): Those that its teachers have, too.
        teachers (str): Their names, for the message.
    """
    if set(student) - set(shared):
        print_log(
            f'{head}: of the strides {list(student)} of the student, only '
            f'{list(shared)} are in {teachers}, too; the others get no '
            'signal.',
            logger='current',
        )


def check_strides(
    strides: Sequence[int], wanted: Sequence[int], owner: str
) -> None:
    """Make sure that a side has the wanted strides.

    Raises:
        ValueError: If it lacks one, listing what it has.
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
    """Maps of one stride, cut to the rows and columns that all have.

    Inputs grow by padding at the right and at the bottom only (a teacher's
    size divisor), so that equal indices are equal places. That is only so
    where the strides are those that the heads tell: the sizes of two maps,
    times the stride, may differ as those of the inputs do.

    Args:
        maps (Sequence[Tensor]): Shapes (..., H_i, W_i), the student's first.
        sizes (Sequence[tuple[int, int]]): Height and width of the input that
            each map comes from.
        stride (int): Of all maps.
        teachers (Sequence[str]): Whose the other maps are, for the message.

    Raises:
        ValueError: If a map's size has another reason than its padding.
    """
    shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
    for shape, size, name in zip(shapes[1:], sizes[1:], teachers):
        sides = zip(shapes[0], shape, sizes[0], size)
        excess = max(abs((b - a) * stride - (t - s)) for a, b, s, t in sides)
        if excess > SLACK_ROWS * stride and excess >= SLACK_PIXELS:
            raise ValueError(
                f'maps of stride {stride}: the student has one of size '
                f'{shapes[0]} for an input of {sizes[0]}, teacher {name!r} '
                f'one of {shape} for {size}; expected sizes that differ by '
                'the padding of the inputs only. Set the strides of both '
                "heads to those of their necks' maps."
            )
    height = min(x.shape[-2] for x in maps)
    width = min(x.shape[-1] for x in maps)
    return [x[..., :height, :width] for x in maps]
