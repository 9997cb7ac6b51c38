"""Report the cost of a quantized detector, layer by layer.

The report has bits, parameters, packed bytes, MACs, BitOPs and the time of the
float32 computation. It is printed; --html also writes it as one HTML page.

python tools/report.py configs/gor/yolox_nano_w4_from_nano.py --html r.html
"""

import argparse
from pathlib import Path

import torch
from _common import add_cfg_options, load_config
from mmengine.config import Config
from torch import nn

from mmgor.deploy.cost.figures import COLUMNS, summary
from mmgor.deploy.cost.html import report_html
from mmgor.deploy.cost.measure import (
    TIMED_PASSES,
    WARMUP_PASSES,
    check_size,
    layer_costs,
)
from mmgor.deploy.cost.rows import EVERYTHING_ELSE, LayerCost, total_costs
from mmgor.deploy.input_size import configured_size, padded_size
from mmgor.deploy.loading import load_detector
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.atomic_write import write_text
from mmgor.io.checkpoint import is_deployed
from mmgor.quantization.layers.weights import weighted_layers, weights_of

_SHOWN = 3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Bits, bytes, MACs, BitOPs and time of every layer'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file or URL (optional)'
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='input in pixels (default: size of the test images)',
    )
    parser.add_argument('--html', type=Path, help='also write this HTML page')
    add_cfg_options(parser)
    return parser.parse_args()


def input_size(
    cfg: Config, asked: list[int] | None, divisor: int
) -> tuple[int, int]:
    """Height and width of the network's input in pixels.

    Args:
        cfg (Config): Its test images have the default size.
        asked (list[int], optional): Height and width from the command line.
        divisor (int): Images are padded to multiples of it.

    Raises:
        ValueError: If a side is less than 32 pixels, or the config has no
            size.
    """
    height, width = asked or configured_size(cfg)
    check_size((height, width))
    return padded_size((height, width), divisor)


def uncounted_weights(model: nn.Module) -> list[str]:
    """Names of weights outside of layers, such as embeddings: their MACs are
    in no row."""
    rows = weighted_layers(model)
    listed = {id(p) for layer in rows.values() for p in weights_of(layer)}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
        and id(parameter) not in listed
        and '_quantizer.' not in name
        and is_deployed(name)
    ]


def report_notes(rows: list[LayerCost], uncounted: list[str]) -> list[str]:
    """Sentences that explain the numbers of the report.

    Args:
        rows (list[LayerCost]): From ``layer_costs``.
        uncounted (list[str]): From :func:`uncounted_weights`.
    """
    notes = [
        'Times are those of the float32 computation in PyTorch on this '
        'machine, with all quantizers off: for each call the median of '
        f'{TIMED_PASSES} passes, after {WARMUP_PASSES} to warm up. They show '
        'where the work is, not how fast a quantized model runs: only the '
        'runtime on the target device can tell that.',
        'MACs are those of layers with weights, for one image, without '
        'post-processing. A shared layer, for example one that runs on all '
        'pyramid levels, counts once per call; the output shown is that of '
        'its first call. BitOPs are MACs x weight bits (W) x input bits (A); '
        'a float layer has 32 x 32.',
        'Bytes are those of the packed file: weights with their bits, one '
        'float32 scale per channel and per input, and biases and everything '
        'else (batch norm, not folded) in float32. 1 kB is 1000 bytes.',
    ]
    layers = [row for row in rows if row.name != EVERYTHING_ELSE]
    silent = [row.name for row in layers if not row.calls]
    roi = [name for name in silent if name.startswith('roi_head.')]
    others = [name for name in silent if name not in roi]
    uncalibrated = sum(row.input == 'uncalibrated' for row in rows)
    if roi:
        notes.append(
            f'The {len(roi)} layers of roi_head have 0 calls: they run once '
            'per proposal, so that their work depends on the image. They '
            'count in bytes, but not in MACs, BitOPs and times.'
        )
    if others:
        notes.append(
            f'0 calls: {_some(others)} did not run as layers (they are used '
            'in training only, or another module reads their weight). They '
            'count in bytes, but not in MACs, BitOPs and times. '
            '(nn.MultiheadAttention has those of its out_proj in its own '
            'row.)'
        )
    if uncalibrated:
        notes.append(
            f'{uncalibrated} quantized layers are not calibrated, so that '
            'the kind of their input (signed, unsigned or affine) is '
            'unknown. Give the checkpoint of the quantized model to see it.'
        )
    if uncounted:
        notes.append(
            'MACs and BitOPs do not include weights outside of layers, '
            f'such as embeddings: {_some(uncounted)}.'
        )
    return notes


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    more = f' and {rest} more' if rest > 0 else ''
    return ', '.join(names[:_SHOWN]) + more


def as_text(
    rows: list[LayerCost], facts: dict[str, str], notes: list[str]
) -> str:
    """The report as aligned lines."""
    total = total_costs(rows)
    table = [[column.title for column in COLUMNS]] + [
        [column.show(row, total) for column in COLUMNS] for row in rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*table)]
    lines = [
        '  '.join(
            cell.ljust(width) if column.kind == 'text' else cell.rjust(width)
            for column, cell, width in zip(COLUMNS, line, widths)
        )
        for line in table
    ]
    lines += ['', *(f'{k + ":":12s} {v}' for k, v in facts.items()), '']
    lines += [f'{k + ":":12s} {v:>10s}  {why}' for k, v, why in summary(total)]
    return '\n'.join([*lines, '', *notes])


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    model = load_detector(cfg, args.checkpoint)
    divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
    size = input_size(cfg, args.size, divisor)
    rows = layer_costs(model, size)
    channels = image_channels(model) or COLOUR
    facts = {
        'Config': str(args.config),
        'Checkpoint': args.checkpoint or 'none, untrained weights',
        'Input': f'1 x {channels} x {size[0]} x {size[1]}',
        'Measured in': f'PyTorch {torch.__version__} on the CPU, '
        f'{torch.get_num_threads()} thread(s)',
    }
    notes = report_notes(rows, uncounted_weights(model))
    print(as_text(rows, facts, notes))
    if args.html is not None:
        title = f'Cost of {Path(args.config).stem}'
        write_text(args.html, report_html(rows, title, facts, notes))
        print(f'\n{args.html}')


if __name__ == '__main__':
    main()
