"""Measure the loss of accuracy by few bits without training, and its layers.

A float checkpoint is calibrated on training batches and evaluated with all
quantizers, with those of the weights only and with those of the inputs only.
With ``--layers`` each layer is quantized alone instead. For the worst layers
the squared error of the neck's output is printed, relative to its variance,
mean over levels.

python benchmarks/sensitivity.py configs/baselines/yolox_nano_w8.py \
    weights/yolox_nano.pth [--layers] [--cfg-options key=value ...]
"""

import argparse
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from mmengine.config import DictAction
from mmengine.runner import Runner
from torch import nn

import mmgor  # noqa: F401
from mmgor.io.checkpoint_reader import protect_loading
from mmgor.io.config_reader import read_config
from mmgor.quantization import PassThrough, calibrate, quantized_layers

ARMS = {
    'float': (False, False),
    'weights': (True, False),
    'inputs': (False, True),
    'both': (True, True),
}


def switch(
    model: nn.Module,
    weights: bool,
    inputs: bool,
    chosen: Callable[[str], bool] = lambda name: True,
) -> None:
    """Quantize the weights and/or inputs of the chosen layers, no others."""
    for name, layer in quantized_layers(model).items():
        on = chosen(name)
        layer.weight_quantizer.observer = (
            None if weights and on else PassThrough()
        )
        layer.input_quantizer.observer = (
            None if inputs and on else PassThrough()
        )


def calibrated(runner: Runner, num_batches: int) -> list[Any]:
    """Calibrate the runner's model in evaluation mode, which leaves the float
    network unchanged, and return the batches."""
    loader = Runner.build_dataloader(runner.cfg.train_dataloader, seed=0)
    batches = list(islice(loader, num_batches))
    model: Any = runner.model

    def run(batch: Any) -> None:
        model.eval()
        model(**model.data_preprocessor(batch, False), mode='tensor')

    calibrate(model, batches, run)
    model.eval()
    return batches


@torch.no_grad()
def layer_errors(
    model: Any, batch: Any, weights: bool, inputs: bool
) -> list[tuple[float, str]]:
    """(error, path) of each layer of backbone and neck alone, worst first."""
    data = model.data_preprocessor(batch, False)['inputs']
    switch(model, False, False)
    reference = model.extract_feat(data)
    rows = []
    for name in quantized_layers(model):
        if name.startswith(('backbone.', 'neck.')):
            switch(model, weights, inputs, name.__eq__)
            maps = model.extract_feat(data)
            shares = [
                (a - b).square().mean() / b.var((0, 2, 3)).mean()
                for a, b in zip(maps, reference)
            ]
            rows.append((float(torch.stack(shares).mean()), name))
    return sorted(rows, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--layers', action='store_true')
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    parser.add_argument('--num-batches', type=int, default=8)
    parser.add_argument('--worst', type=int, default=10)
    parser.add_argument('--work-dir', default='work_dirs/sensitivity')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    # No EMAHook: it would test its own copy of the model.
    cfg.update(load_from=args.checkpoint, custom_hooks=[])
    cfg.work_dir = args.work_dir
    protect_loading()
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    batches = calibrated(runner, args.num_batches)
    for arm in args.arms:
        weights, inputs = ARMS[arm]
        if args.layers and arm != 'float':
            rows = layer_errors(runner.model, batches[0], weights, inputs)
            print(f'{arm}: sum {sum(error for error, _ in rows):.4f}')
            for error, name in rows[: args.worst]:
                print(f'  {error:.5f} {name}')
        elif not args.layers:
            switch(runner.model, weights, inputs)
            metrics = runner.test()
            print(
                f'{arm}: mAP {100 * metrics["coco/bbox_mAP"]:.1f} AP50 '
                f'{100 * metrics["coco/bbox_mAP_50"]:.1f}'
            )


if __name__ == '__main__':
    main()
