"""How far a fresh batch's task gradient agrees with both losses' gradients.

For pairs of batches, at the last convolutions of the neck: c is the cosine
between the gradients of task and distillation loss on one batch, a and b are
the cosines of these two with the task gradient on the other batch, which is
the judge. The weights whose sum of unit gradients is nearest to the judge's
unit gradient have the ratio (b - c a) / (a - c b), distillation over task.
Measured before and after the training that the config describes; "+-" is the
standard error over the pairs.

python benchmarks/fresh_batch.py CONFIG [--pairs 20] \
    [--cfg-options key=value ...]
"""

import argparse
import re
from itertools import islice
from typing import Any

import torch
from mmengine.config import DictAction
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmgor.io.checkpoint_reader import protect_loading
from mmgor.io.config_reader import read_config
from mmgor.trial_run import trial_run
from mmgor.weighting import FixedWeighting
from mmgor.weighting.base import total_loss


class JudgeHook(Hook):
    """Measures before the first and after the last step."""

    # After calibration; before the weights are averaged.
    priority = 'VERY_LOW'

    def __init__(self, pairs: int, at: str) -> None:
        self.pairs, self.at = pairs, re.compile(at)

    def before_train(self, runner: Runner) -> None:
        self._measure(runner, 'start')

    def after_train(self, runner: Runner) -> None:
        self._measure(runner, 'end')

    def _measure(self, runner: Runner, when: str) -> None:
        model: Any = runner.model
        weighting = model.gor_weighting
        with trial_run(model):
            model.gor_weighting = FixedWeighting()
            batches = list(islice(runner.train_dataloader, 2 * self.pairs))
            rows = [
                self._cosines(model, first, fresh)
                for first, fresh in zip(batches[::2], batches[1::2])
            ]
        model.gor_weighting = weighting
        values = torch.stack(rows)
        mean = values.mean(0)
        error = values.std(0) / len(rows) ** 0.5
        c, a, b = mean.tolist()
        print(
            f'{when}: c {c:.3f} +- {error[0]:.3f}, a {a:.3f} +- '
            f'{error[1]:.3f}, b {b:.3f} +- {error[2]:.3f}; b / a '
            f'{b / a:.2f}, ratio of weights {(b - c * a) / (a - c * b):.2f} '
            f'({len(rows)} pairs)',
            flush=True,
        )

    def _cosines(self, model: Any, first: Any, fresh: Any) -> Tensor:
        task, kd = self._gradients(model, first)
        judge, _ = self._gradients(model, fresh)
        return torch.stack([task @ kd, task @ judge, kd @ judge])

    def _gradients(self, model: Any, batch: Any) -> tuple[Tensor, Tensor]:
        """Unit gradients of both losses."""
        at = [p for n, p in model.named_parameters() if self.at.search(n)]
        if not at:
            raise ValueError(
                f'--at {self.at.pattern} matches no parameter of the student; '
                "expected a pattern of its neck's last layers, such as "
                "'neck.fpn_convs'."
            )
        data = model.data_preprocessor(batch, True)
        losses = model.loss(data['inputs'], data['data_samples'])
        parts: list[dict] = [{}, {}]
        for name, value in losses.items():
            parts['loss_kd_' in name][name] = value
        found = [
            torch.autograd.grad(total_loss(part), at, retain_graph=True)
            for part in parts
        ]
        flat = [torch.cat([g.flatten() for g in grads]) for grads in found]
        return flat[0] / flat[0].norm(), flat[1] / flat[1].norm()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--pairs', type=int, default=20, help='at least 2')
    parser.add_argument(
        '--at', default=r'neck\.(fpn_convs|out_convs)\..*conv\.weight$'
    )
    parser.add_argument('--work-dir', default='work_dirs/fresh_batch')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    cfg = read_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.work_dir = args.work_dir
    protect_loading()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(JudgeHook(args.pairs, args.at))
    runner.train()


if __name__ == '__main__':
    main()
