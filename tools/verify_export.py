"""Compare an exported file with the checkpoint that it came from.

Raw outputs and detections on the same test pictures, with --map also what the
config's evaluator makes of both. Exit status 1: further apart than tolerated.

python tools/verify_export.py CONFIG CHECKPOINT student.onnx --map
"""

import argparse
import sys

from _common import add_cfg_options, load_config

from mmgor.deploy.verify.comparison import (
    COUNTED_SCORE,
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
    parser.add_argument('model', help='.onnx or .xml of tools/export.py')
    parser.add_argument(
        '--images',
        type=int,
        default=32,
        help='test pictures to compare outputs on (default: %(default)s)',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=MEAN_TOLERANCE,
        help='largest mean difference of an output in units of its standard '
        'deviation (default: %(default)s)',
    )
    parser.add_argument(
        '--map',
        action='store_true',
        help='also evaluate both on all test pictures',
    )
    parser.add_argument(
        '--map-tolerance',
        type=float,
        default=MAP_TOLERANCE,
        help='largest difference of a mAP in points (default: %(default)s)',
    )
    parser.add_argument(
        '--matched',
        type=float,
        default=MATCHED_SHARE,
        help=f'smallest share of the detections of score {COUNTED_SCORE} or '
        'more that the other side has, too (default: %(default)s)',
    )
    parser.add_argument(
        '--integer-kernels',
        action='store_true',
        help="with the backend's integer kernels, which are not exact",
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
