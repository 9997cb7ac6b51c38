"""Write one HTML page on a training: mAP, losses, layers, images.

mmgor report work_dirs/retinanet_r18_w4_from_r101
"""

import argparse
from functools import partial
from pathlib import Path

from mmgor.io.config_values import integer
from mmgor.training_report import NUM_IMAGES, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'work_dir', type=Path, help='work directory of the training'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='file to write (default: report.html in the work directory)',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=NUM_IMAGES,
        metavar='N',
        help='evaluation images that student and teachers look at; 0: none '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--checkpoint',
        type=Path,
        help="the student's weights (default: the best checkpoint, else the "
        'last one)',
    )


def run(args: argparse.Namespace) -> None:
    out = write_report(
        args.work_dir,
        args.out,
        integer('--images', args.images, 0),
        args.checkpoint,
        partial(print, flush=True),
    )
    print(out, flush=True)
