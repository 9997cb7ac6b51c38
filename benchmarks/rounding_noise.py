"""How far a student moves by itself: the noise that its files are judged by.

Fake quantization rounds sums of floats, so a change of their last digits moves
single values by whole steps. Here everything that is rounded is larger by a
tiny share. What a file would give is compared with that of the student as it
is, and the mAP is computed. A file that differs by no more is not wrong. Of a
student that is exported in part, the rest moves, too.

python benchmarks/rounding_noise.py CONFIG CHECKPOINT --changes 1e-7 1e-6 1e-5
"""

import argparse
import sys
from copy import deepcopy
from typing import Any

import torch
from mmdet.utils import register_all_modules
from mmengine.config import DictAction
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import Tensor

from mmgor.deploy.export.frozen import check_calibrated
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.loading import load_detector
from mmgor.deploy.parts import parts_of
from mmgor.deploy.verify.changed_roundings import (
    changed_roundings,
    input_quantizers,
)
from mmgor.deploy.verify.run_check import mean_difference
from mmgor.io.config_reader import read_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config')
    parser.add_argument(
        'checkpoint', help='checkpoint of the quantized student'
    )
    parser.add_argument(
        '--changes',
        type=float,
        nargs='+',
        default=[1e-7, 1e-6, 1e-5],
        help='relative changes of what is rounded; each is tried upwards and '
        'downwards',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


class Movement:
    """Mean movement of the outputs, in their standard deviations."""

    def __init__(self) -> None:
        self._moved: list[float] = []

    def add(self, wanted: list[Tensor], got: list[Tensor]) -> None:
        """Add the outputs of a batch."""
        self._moved += map(mean_difference, wanted, got)

    @property
    def mean(self) -> float:
        """The mean of all outputs and batches."""
        return sum(self._moved) / len(self._moved)


@torch.no_grad()
def main() -> None:
    args = parse_args()
    register_all_modules()
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    model: Any = load_detector(cfg, args.checkpoint)
    check_calibrated(model)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    quantizers, parts = input_quantizers(model), parts_of(model)
    changes = [0.0] + [s * c for c in args.changes for s in (1, -1)]
    evaluators = [Evaluator(deepcopy(cfg.test_evaluator)) for _ in changes]
    movements = [Movement() for _ in changes]
    for evaluator in evaluators:
        evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        samples = data['data_samples']
        stock = None
        for i, change in enumerate(changes):
            with changed_roundings(quantizers, change):
                outputs = parts.outputs(model, data['inputs'])
                with parts.giving(model, outputs):
                    found = model.predict(data['inputs'], samples)
            stock = stock or flatten(outputs)
            movements[i].add(stock, flatten(outputs))
            evaluators[i].process(found, batch)
    rows = []
    for change, evaluator, moved in zip(changes, evaluators, movements):
        metrics = evaluator.evaluate(len(loader.dataset))
        if 'coco/bbox_mAP' not in metrics:
            sys.exit(
                f'expected coco/bbox_mAP, got {list(metrics)}; use a student '
                'that detects something, and a CocoMetric as test_evaluator.'
            )
        ends = [metrics[f'coco/bbox_mAP{end}'] for end in ('', '_50')]
        figures = ' / '.join(f'{100 * end:.1f}' for end in ends)
        rows.append(f'| {change:g} | {moved.mean:.3f} | {figures} |')
    print('| change | mean movement, standard deviations | mAP / AP50 |')
    print('|---:|---:|---:|', *rows, sep='\n')


if __name__ == '__main__':
    main()
