"""Synthesise training images from a float detector, without data.

The images fit the statistics in the detector's batch norms, and show it
objects at random places (docs/bits.md). They are written with their
boxes in COCO format. A call that was interrupted goes on when it is repeated.

python tools/synthesize.py CONFIG CHECKPOINT --out data/synthetic --images 256
"""

import argparse
import time
from pathlib import Path

import torch
from _common import add_cfg_options, load_config

from mmgor.deploy.input_size import configured_size
from mmgor.deploy.loading import class_names, load_detector
from mmgor.quantization import quantized_layers
from mmgor.synthesis import SynthesisSpec, synthesize


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file of the float detector')
    parser.add_argument('checkpoint', help='its checkpoint file or URL')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder to write'
    )
    parser.add_argument(
        '--images', type=int, required=True, help='number of images'
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='height and width of the images in pixels; by default the size '
        'that the test pipeline resizes to',
    )
    parser.add_argument(
        '--steps', type=int, default=50, help='steps of the optimisation'
    )
    parser.add_argument(
        '--batch',
        type=int,
        default=16,
        help='most images whose statistics are matched together; it decides '
        'how much memory is used',
    )
    parser.add_argument('--seed', type=int, default=0)
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    model = load_detector(cfg, args.checkpoint)
    if quantized_layers(model):
        raise ValueError(
            f'{args.config} is a quantized detector: expected the float one '
            'that it started from. Type its config and checkpoint.'
        )
    height, width = args.size or configured_size(cfg)
    spec = SynthesisSpec(
        args.images, (height, width), args.steps, args.batch, args.seed
    )
    started = time.monotonic()

    def report(done: int, step: int, losses: dict[str, float]) -> None:
        if step == 1 or step % 10 == 0 or step == spec.steps:
            parts = ', '.join(f'{k} {v:.4f}' for k, v in losses.items())
            print(
                f'{done} of {spec.num_images} images, step {step} of '
                f'{spec.steps}: {parts} ({time.monotonic() - started:.0f} s)',
                flush=True,
            )

    target = synthesize(
        model.to('cuda' if torch.cuda.is_available() else 'cpu'),
        class_names(cfg, model),
        args.out,
        spec,
        report,
    )
    print(f'{target}: {spec.num_images} images')


if __name__ == '__main__':
    main()
