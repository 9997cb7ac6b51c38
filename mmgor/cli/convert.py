"""Write the config of a low-bit student on top of your own config::

    mmgor convert my_config.py my_checkpoint.pth --w 4 --a 4 --out student.py
    mmgor convert mmdet::atss/atss_r50_fpn_1x_coco.py \\
        --teacher mmdet::atss/atss_r101_fpn_1x_coco.py --out student.py
    mmgor train student.py

One training step is tried on two images of noise before the file appears.
"""

import argparse
import shlex
from functools import partial
from pathlib import Path

from mmgor.targets import TARGETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help="config of a float detector: a file or an 'mmdet::...' name",
    )
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        nargs='?',
        help='its weights, a file or URL (default: load_from of the config, '
        'else those of its model zoo)',
    )
    parser.add_argument(
        '--w', type=int, default=4, help='weight bits, 2 to 8 (default: 4)'
    )
    parser.add_argument(
        '--a', type=int, default=4, help='activation bits (default: 4)'
    )
    parser.add_argument(
        '--target', choices=[*TARGETS], help='where the exported file will run'
    )
    parser.add_argument(
        '--teacher',
        action='append',
        default=[],
        metavar='CONFIG.py:CHECKPOINT',
        help='a larger detector to learn from; may be given several times, '
        'the best first',
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='FOLDER',
        help='your own images: a folder with train.json and eval.json (COCO '
        'format) and images/',
    )
    parser.add_argument(
        '--epochs',
        type=int,
        help='length of the training (default: as in CONFIG)',
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='the config to write (.py)'
    )


def run(args: argparse.Namespace) -> None:
    """Convert and say what comes next."""
    from mmengine.logging import MMLogger

    from mmgor.conversion.convert import convert
    from mmgor.conversion.request import Request

    # What the parts log while they are tried is said once, below.
    MMLogger.get_instance('mmgor', log_level='ERROR')
    request = Request(
        args.config,
        args.out,
        args.checkpoint,
        args.w,
        args.a,
        args.target,
        args.teacher,
        args.data,
        args.epochs,
    )
    convert(request, partial(print, flush=True))
    command = shlex.join(['mmgor', 'train', str(args.out)])
    print(f'written    {args.out}\nnext       {command}')
