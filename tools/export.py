"""Export a trained quantized detector to ONNX or OpenVINO IR.

The file has integer weights and folded batch norms. It has QuantizeLinear and
DequantizeLinear (with Clip below 8 bits) where training had fake quantization.

python tools/export.py CONFIG CHECKPOINT --backend onnxruntime --out m.onnx
python tools/export.py CONFIG CHECKPOINT --backend openvino --out m.xml
"""

import argparse
import warnings
from pathlib import Path

from _common import add_cfg_options, load_config
from mmengine.config import Config

from mmgor.deploy.export.exporter import BACKENDS, export_detector
from mmgor.deploy.input_size import (
    configured_resizes,
    configured_size,
    padded_size,
    size_divisor,
)
from mmgor.deploy.loading import class_names, load_detector


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--backend', choices=BACKENDS, default='onnxruntime')
    parser.add_argument(
        '--out', type=Path, required=True, help='.onnx, or .xml for openvino'
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='height and width of the padded images in pixels; by default '
        'the size that the test pipeline resizes to',
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        '--dynamic', action='store_true', help='any image and batch size'
    )
    sizes.add_argument('--batch', type=int, default=1, help='batch size')
    parser.add_argument(
        '--int4',
        action='store_true',
        help='write weights of up to 4 bits as int4',
    )
    parser.add_argument(
        '--nms',
        action='store_true',
        help='put decoding and NMS into the graph: boxes, scores, labels',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.out.suffix != BACKENDS[args.backend]:
        parser.error(
            f'--out expected a name ending in {BACKENDS[args.backend]} for '
            f'{args.backend}, got {args.out}'
        )
    if args.batch < 1:
        parser.error(f'--batch expected at least 1, got {args.batch}')
    return args


def default_size(cfg: Config, dynamic: bool) -> tuple[int, int]:
    """Height and width of the padded test images, in pixels."""
    size = padded_size(configured_size(cfg), size_divisor(cfg, dynamic))
    unequal = size[0] != size[1]
    keeps_ratio = any(
        step.get('keep_ratio') for step in configured_resizes(cfg)
    )
    if unequal and not dynamic and keeps_ratio:
        side = max(size)
        warnings.warn(
            f'the file will take images of up to {size[0]} x {size[1]} '
            '(height x width), but the test pipeline keeps their aspect '
            'ratio: images of the other orientation will be refused. To take '
            f'them, type --dynamic, or --size {side} {side}.',
            stacklevel=2,
        )
    return size


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    model = load_detector(cfg, args.checkpoint)
    size = args.size or default_size(cfg, args.dynamic)
    done = export_detector(
        model,
        cfg,
        args.out,
        (size[0], size[1]),
        class_names(cfg, model),
        dynamic=args.dynamic,
        batch=args.batch,
        int4=args.int4,
        nms=args.nms,
    )
    spec = done['metadata']['input']
    shape = (
        'dynamic'
        if args.dynamic
        else ' x '.join(
            str(spec[key]) for key in ('batch', 'channels', 'height', 'width')
        )
    )
    print(
        f'{args.out}: {done["bytes"] / 1e6:.2f} MB, input {shape}, '
        f'{len(done["metadata"]["quantization"])} quantized layers, '
        f'{done["folded"]} batch norms folded'
    )


if __name__ == '__main__':
    main()
