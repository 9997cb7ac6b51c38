"""What ChannelsLastHook gives to the step of a W4A4 student.

Three students train on random images (batches of 8) of two sizes: one of dense
convolutions, one with depthwise convolutions in its backbone, and one that has
them in all parts. With and without the hook they take turns; the ratio of the
two times is taken in each round, and the median over the rounds is printed.

OMP_NUM_THREADS=1 python benchmarks/memory_layout.py [--rounds 9]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from mmdet.utils import register_all_modules
from mmengine.config import Config
from step_time import CONFIGS, build, make_batch, step_of, timed

from mmgor.hooks.channels_last_hook import use_channels_last

STUDENTS = {
    'RetinaNet-R18 at half width': 'retinanet_r18half.py',
    'RetinaNet-MobileNetV2': 'retinanet_mbv2.py',
    'YOLOX-nano, depthwise': 'yolox_nano.py',
}
WRAPPERS = {
    'backbone': ('QuantBackbone', 'backbone'),
    'neck': ('QuantNeck', 'neck'),
    'bbox_head': ('QuantHead', 'head'),
}
SIZES = [(256, 320), (64, 64)]
BATCH = 8
WARM_UP = 4


def quantized(file: str) -> Config:
    """The config of a float detector, with quantized parts."""
    cfg = Config.fromfile(CONFIGS / file)
    for name, (wrapper, key) in WRAPPERS.items():
        part = cfg.model[name]
        part[key] = part.pop('type')
        part.update(type=wrapper, quant=dict(w_bits=4, a_bits=4))
    return cfg


def steps_of(
    file: str, size: tuple[int, int], device: str
) -> list[Callable[[], None]]:
    """A student's step without and with the layout."""
    args = argparse.Namespace(batch=BATCH, size=size, device=device)
    found = []
    for changed in (False, True):
        model, wrapper = build(quantized(file), args, Path())
        if changed:
            use_channels_last(model)
        found.append(step_of(model, wrapper, make_batch(args, device)))
    return found


def measure(
    steps: list[Callable[[], Any]], rounds: int, device: str
) -> list[list[float]]:
    """Seconds of each step, one value per round."""
    for step in steps * WARM_UP:
        step()
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for values, step in zip(times, steps):
            values.append(timed(step, device))
    return times


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args(argv)
    if args.rounds < 2:
        parser.error(f'--rounds: expected at least 2, got {args.rounds}')
    register_all_modules()
    print('| student, W4A4 | pixels | without | with | ratio (quartiles) |')
    print('|---|---|---|---|---|')
    for name, file in STUDENTS.items():
        for size in SIZES:
            steps = steps_of(file, size, args.device)
            before, after = measure(steps, args.rounds, args.device)
            ratios = [a / b for a, b in zip(after, before)]
            low, middle, high = quantiles(ratios, n=4)
            print(
                f'| {name} | {size[0]} x {size[1]} '
                f'| {1000 * median(before):.0f} ms '
                f'| {1000 * median(after):.0f} ms '
                f'| {middle:.2f} ({low:.2f} to {high:.2f}) |',
                flush=True,
            )


if __name__ == '__main__':
    main()
