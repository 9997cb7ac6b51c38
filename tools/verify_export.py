"""Compare an exported file with the checkpoint it came from.

Both run on the same test images; their raw outputs and detections are
compared, with --map also their mAP on all test images. The exit status is 1 if
they differ more than tolerated.

python tools/verify_export.py CONFIG CHECKPOINT student.onnx --map
"""

import argparse
import sys

from _common import add_cfg_options, load_config

from mmgor.deploy.verify.changed_roundings import MOST_TOLERATED
from mmgor.deploy.verify.comparison import (
    COUNTED_SCORE,
    LEAST_SHARE,
    MAP_TOLERANCE,
    MATCHED_SHARE,
    MEAN_TOLERANCE,
)
from mmgor.deploy.verify.verify_export import verify_export


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('model', help='exported file, such as .onnx')
    parser.add_argument(
        '--images',
        type=int,
        default=32,
        help='number of test images to compare on (default: %(default)s)',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=MEAN_TOLERANCE,
        help='largest mean difference of an output, in units of its standard '
        'deviation (default: %(default)s); or twice what PyTorch itself moves '
        f'by after a tiny change, up to {MOST_TOLERATED}, if that is more',
    )
    parser.add_argument(
        '--map',
        action='store_true',
        help='also evaluate both on all test images',
    )
    parser.add_argument(
        '--map-tolerance',
        type=float,
        default=MAP_TOLERANCE,
        help='largest difference of the mAP, in points of 0.01 (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--matched',
        type=float,
        default=MATCHED_SHARE,
        help='smallest share of the detections with a score of '
        f'{COUNTED_SCORE} or more that the other side has too (default: '
        '%(default)s); less, down to '
        f'{LEAST_SHARE}, if PyTorch itself loses some after a tiny change',
    )
    parser.add_argument(
        '--integer-kernels',
        action=argparse.BooleanOptionalAction,
        help="use the backend's integer kernels (default: if training "
        'rounded every tensor)',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    found = verify_export(
        load_config(args),
        args.checkpoint,
        args.model,
        args.images,
        args.map,
        args.integer_kernels,
    )
    print(found.text())
    failures = found.failures(args.tolerance, args.map_tolerance, args.matched)
    for line in failures:
        print(f'FAILED {line}')
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
