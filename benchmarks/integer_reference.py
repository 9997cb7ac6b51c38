"""Compare the integer reference with the fake-quantized network.

Every quantized layer of a trained detector gets the float input that it has in
a pass over test images. Its output, requantized to 8 bits, is compared with
that of the fake-quantized layer on the same grid. (Batch norm is left out
here; the tests fold it.)

python benchmarks/integer_reference.py CONFIG CHECKPOINT [--images 4]
"""

import argparse
from itertools import islice
from typing import Any

import torch
from mmdet.utils import register_all_modules
from mmengine.config import DictAction
from mmengine.runner import Runner
from torch import Tensor

from mmgor.deploy.integer_reference.layers import integer_layer
from mmgor.deploy.loading import load_detector
from mmgor.io.config_reader import read_config
from mmgor.quantization import Grid, quantized_layers


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint of the quantized student'
    )
    parser.add_argument('--images', type=int, default=4)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


def eight_bits(values: Tensor) -> Grid:
    """A symmetric grid of 8 bits that holds ``values``."""
    scale = values.abs().max().clamp(min=1e-12) / 127
    return Grid(scale, torch.zeros((), dtype=torch.int32), -127, 127)


class Comparison:
    """Counts the differences, in output steps, of all calls of all layers."""

    def __init__(self, model: Any) -> None:
        self.calls = dict.fromkeys(quantized_layers(model), 0)
        self.worst, self.off, self.values = 0, 0, 0
        for name, layer in quantized_layers(model).items():
            layer.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def compare(layer: Any, inputs: tuple, output: Tensor) -> None:
            slot = self.calls[name] % layer.input_quantizer.num_slots
            self.calls[name] += 1
            grid = eight_bits(output)
            got = integer_layer(layer, inputs[0], grid, slot)
            steps = (got - grid.quantize(output)).abs()
            self.worst = max(self.worst, int(steps.max()))
            self.off += int((steps > 0).sum())
            self.values += steps.numel()

        return compare


@torch.no_grad()
def main() -> None:
    args = parse_args()
    register_all_modules()
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    model: Any = load_detector(cfg, args.checkpoint)
    found = Comparison(model)
    loader = cfg.test_dataloader
    loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    for batch in islice(Runner.build_dataloader(loader), args.images):
        images = model.data_preprocessor(batch, False)['inputs']
        model.bbox_head(model.extract_feat(images))
    print(
        f'{len(found.calls)} layers, {sum(found.calls.values())} calls, '
        f'{found.values} values: largest difference {found.worst} step(s), '
        f'{1e6 * found.off / found.values:.1f} in a million differ'
    )


if __name__ == '__main__':
    main()
