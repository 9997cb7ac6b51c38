"""Find the bits of every layer of a student that meet a budget::

    mmgor bits student.py float.pth --mean-bits 4 --out student_bits.py
    mmgor bits student.py float.pth --bytes 0.6MB --out student_bits.py
    mmgor bits student.py float.pth --budget "mAP 0.5" --out student_bits.py

What each layer's weight and input lose with 2 to 8 bits is estimated from
the gradients of the loss on training images. The bits are written as
overrides of a config on top of yours. A plot lies beside it. First and
prediction layers keep the bits that your config gives them.
"""

import argparse
import shlex
from functools import partial
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    from mmengine.config import DictAction

    parser.add_argument('config', metavar='CONFIG', help='a student')
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        help='its weights: in float, or of a quantized training',
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        '--mean-bits',
        type=float,
        help='most bits per weight and per input value, on average over all '
        'but first and prediction layers',
    )
    budget.add_argument(
        '--bytes',
        metavar='SIZE',
        help='size of the packed file, such as 0.6MB; inputs keep their bits',
    )
    budget.add_argument(
        '--budget',
        metavar='"mAP 0.5"',
        help='most mAP that calibration alone may lose, in points',
    )
    parser.add_argument(
        '--batches', type=int, default=8, help='training batches (default: 8)'
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='the config to write (.py)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries for the measurement: key=value',
    )


def run(args: argparse.Namespace) -> None:
    """Search, write the config and the plot, print the table."""
    import tempfile

    from mmgor.bit_search.budget import Budget, parse_drop, parse_size
    from mmgor.bit_search.result import config_text, plot, summary, table
    from mmgor.bit_search.search import search_bits
    from mmgor.io.atomic_write import write_text
    from mmgor.io.config_output import check_output
    from mmgor.io.config_reader import read_config
    from mmgor.io.config_values import integer

    budget = Budget(
        args.mean_bits,
        None if args.bytes is None else parse_size(args.bytes),
        None if args.budget is None else parse_drop(args.budget),
    )
    cfg = read_config(args.config)
    check_output(args.out, cfg)
    integer('--batches', args.batches, 1)
    text = partial(config_text, args.config, args.out, cfg.copy())
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.log_level = 'WARNING'
    say = partial(print, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        found = search_bits(cfg, args.checkpoint, budget, args.batches, say)
    print(table(found))
    print('\n'.join(summary(found)))
    picture = args.out.with_suffix('.png')
    plot(found, picture)
    write_text(args.out, text(found.bits))
    command = shlex.join(['mmgor', 'train', str(args.out)])
    print(f'written    {args.out} and {picture}\nnext       {command}')
