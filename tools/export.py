"""Export a trained quantized detector to a file for a runtime.

The suffix of the file decides its format: .onnx, .xml for OpenVINO, .tflite
for LiteRT, .param for ncnn or .pte for ExecuTorch. The file has integer
weights and folded batch norms. --target writes it by the rules of a runtime,
and checks them (docs/export.md).

python tools/export.py CONFIG CHECKPOINT --out m.onnx
python tools/export.py CONFIG CHECKPOINT --out m.xml
python tools/export.py CONFIG CHECKPOINT --target tensorrt --out m.onnx
python tools/export.py CONFIG CHECKPOINT --target litert --out m.tflite
"""

import argparse
import warnings
from pathlib import Path

from _common import add_cfg_options, load_config
from mmengine.config import Config

from mmgor.deploy.export.exporter import BACKENDS, WRITERS, export_detector
from mmgor.deploy.input_size import (
    configured_resizes,
    configured_size,
    padded_size,
    size_divisor,
)
from mmgor.deploy.loading import class_names, load_detector
from mmgor.deploy.parts import parts_of
from mmgor.targets import TARGETS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--backend',
        choices=BACKENDS,
        help='only checks that the suffix of --out is that of the backend',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help=f'file to write, ending in {" or ".join(WRITERS)}',
    )
    parser.add_argument(
        '--target',
        metavar='NAME',
        help='runtime that the file is for, one of '
        f'{", ".join(TARGETS)}; by default that of the config',
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
        '--dynamic',
        action='store_true',
        help='any image and batch size (.onnx, .xml)',
    )
    sizes.add_argument('--batch', type=int, default=1, help='batch size')
    parser.add_argument(
        '--int4',
        action='store_true',
        help='write weights of up to 4 bits as int4 (x86, litert)',
    )
    parser.add_argument(
        '--nms',
        action='store_true',
        help='put decoding and NMS into the graph: boxes, scores, labels '
        '(.onnx, .xml)',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.backend and args.out.suffix != BACKENDS[args.backend]:
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
        target=args.target,
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
    if done['metadata']['rest']:
        parts = parts_of(model).describe(model)
        print(
            f'{args.out} has a part of the detector: {parts}. '
            'PyTorch runs the rest: python tools/test.py '
            f'{args.config} {args.out} --rest {args.checkpoint}'
        )


if __name__ == '__main__':
    main()
