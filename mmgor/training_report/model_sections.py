"""The parts of the page that come from the checkpoints."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmgor.pages import Bar, bars, table
from mmgor.quantization import layer_table
from mmgor.quantization.report import FLOAT_BITS

from .scales import MOVING, ScaleChange
from .sections import LAYERS, SCALES, charts, section
from .weights import weight_errors

_LARGEST = 12
_MOST_ROWS = 15


def layer_section(model: nn.Module, checkpoint: str) -> str:
    """Bits and rounding of every layer.

    Args:
        model (nn.Module): The student with its weights.
        checkpoint (str): Where they are from.
    """
    rows = layer_table(model)['layers']
    errors = weight_errors(model)
    if not errors:
        return section(
            LAYERS, '', ['This model has no quantized layer: all is in float.']
        )
    largest = sorted(errors.items(), key=lambda item: -item[1].error)
    columns = [
        ('layer', 'text'),
        ('weight', 'number'),
        ('W/A', 'number'),
        ('input', 'text'),
        ('kB', 'number'),
        ('error %', 'share'),
        ('range used %', 'number'),
        ('clipped %', 'number'),
    ]
    body = [_layer_row(row, errors.get(row['name'])) for row in rows]
    parts = [
        bars(
            'Layers with the largest rounding error',
            [
                Bar(name, each.error, f'{100 * each.error:.1f} %')
                for name, each in largest[:_LARGEST]
            ],
            'norm of the error / norm of the weight',
        ),
        bars('Weights by bits', _by_bits(rows)),
    ]
    return section(
        LAYERS,
        charts(parts) + table(columns, body),
        [
            f'From {checkpoint}. The error is the norm of the difference '
            'between a weight and its rounded value, divided by the norm of '
            'the weight. 4 bits with fitting ranges give about 10 %, 8 bits '
            'about 1 %.',
            'The range used is the largest integer in use, relative to the '
            'largest one that the bits allow (mean over channels). Clipped '
            'are weights beyond the range. A layer far above the others may '
            'get more bits by quant=dict(overrides=...).',
        ],
    )


def _layer_row(row: dict[str, Any], error: Any) -> list[str]:
    shape = 'x'.join(map(str, row['shape']))
    if row['w_bits'] == FLOAT_BITS:
        bits = 'float'
    else:
        bits = f'{row["w_bits"]}/{row["a_bits"]}'
    rounding = ['-', '-', '-']
    if error is not None:
        shares = error.error, error.used, error.clipped
        rounding = [f'{100 * share:.1f}%' for share in shares]
    return [
        row['name'],
        shape,
        bits,
        row['input'],
        f'{row["bytes"] / 1e3:,.1f}',
        *rounding,
    ]


def _by_bits(rows: list[dict[str, Any]]) -> list[Bar]:
    sums: dict[int, int] = {}
    for row in rows:
        sums[row['w_bits']] = sums.get(row['w_bits'], 0) + row['params']
    total = sum(sums.values())
    return [
        Bar(
            'float' if bits == FLOAT_BITS else f'{bits} bits',
            count,
            f'{count:,} ({100 * count / total:.1f} %)',
        )
        for bits, count in sorted(sums.items())
    ]


def scale_section(
    changes: Sequence[ScaleChange], names: tuple[str, str]
) -> str:
    """Which step sizes still move.

    Args:
        changes (Sequence[ScaleChange]): The largest first.
        names (tuple[str, str]): Names of the two checkpoints.
    """
    if not changes:
        return section(
            SCALES,
            '',
            [
                f'{names[1]} has no learned step sizes in common '
                f'with {names[0]}.'
            ],
        )
    moving = sum(change.most > MOVING for change in changes)
    columns = [
        ('layer', 'text'),
        ('rounds', 'text'),
        ('step sizes', 'number'),
        ('mean change %', 'number'),
        ('largest change %', 'number'),
    ]
    rows = [
        [
            *_owner(change.name),
            str(change.count),
            f'{round(100 * change.mean, 1) + 0.0:+.1f}',
            f'{100 * change.most:.1f}',
        ]
        for change in changes[:_MOST_ROWS]
    ]
    return section(
        SCALES,
        table(columns, rows),
        [
            f'Change of the logarithm from {names[0]} to {names[1]}, times '
            f'100: about per cent. {moving} of {len(changes)} quantizers '
            f'have a step size that moved by more than {MOVING:.0%}.',
            'Step sizes that still move at the end suggest a longer training, '
            'or a higher learning rate for them (lr_mult in custom_keys, '
            "with '_quantizer.')."
            if moving
            else 'So they rest, or their learning rate is too low to tell.',
            f'Only the {_MOST_ROWS} largest are listed.'
            if len(changes) > _MOST_ROWS
            else '',
        ],
    )


def _owner(name: str) -> tuple[str, str]:
    """The layer of a quantizer, and what it rounds."""
    layer, _, kind = name.rpartition('.')
    if kind.endswith('_quantizer'):
        return layer, f'its {kind.removesuffix("_quantizer")}'
    return name, 'a tensor between layers'
