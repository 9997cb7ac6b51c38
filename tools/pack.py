"""Pack a quantized checkpoint into one file, with weights of n bits each.

The file has all that inference needs. It is read back and compared before it
gets its name. mmgor.deploy.read_packed() returns a state dict for the model
of the config.

python tools/pack.py CONFIG CHECKPOINT --out student.mmgor
"""

import argparse
from pathlib import Path

from _common import add_cfg_options, load_config

from mmgor.deploy.loading import class_names, load_detector
from mmgor.deploy.packing.pack import pack_model
from mmgor.quantization import layer_table, quantized_layers


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--out', type=Path, required=True, help='file to write'
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    inputs = [Path(args.config).resolve(), Path(args.checkpoint).resolve()]
    if args.out.resolve() in inputs:
        parser.error(f'--out {args.out} is an input; give another file.')
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    model = load_detector(cfg, args.checkpoint)
    classes = list(class_names(cfg, model))
    done = pack_model(model, args.out, dict(classes=classes))
    in_float = layer_table(model)['total']['float_bytes']
    print(
        f'{args.out}: {len(quantized_layers(model))} quantized layers, '
        f'{len(classes)} class names; {done["bytes"]} bytes '
        f'({done["tensor_bytes"]} of tensors, {done["manifest_bytes"]} of '
        f'manifest), {in_float} in float32 '
        f'({in_float / done["bytes"]:.1f} times as much)'
    )


if __name__ == '__main__':
    main()
