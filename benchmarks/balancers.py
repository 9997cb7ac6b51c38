"""How balancers treat losses of very different size, and what they cost.

Two tables, in Markdown:

- The scale test: the share of the distillation loss in the weighted sum, and
  of its gradient at the shared features, at the end of a run. After a tenth of
  the run the distillation loss is multiplied by a factor. The student has a
  trunk and a head, and fits targets (task loss) and a teacher's outputs
  (distillation loss) on random inputs.
- The cost: the mean time of a training step with each balancer, in ms and
  relative to a step with fixed weights. All balancers take turns on one
  student, the GoR arm of step_time.py. The mean, because GoR's gradient form
  measures gradients in one step of ten only.

python benchmarks/balancers.py [--steps 1000] [--rounds 20] [--device cpu]
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from mmdet.utils import register_all_modules
from step_time import (
    build,
    make_batch,
    save_teachers,
    step_of,
    student_config,
    timed,
)
from torch import nn

import mmgor  # noqa: F401
from mmgor.registry import MODELS
from mmgor.weighting.theta_steps import default_theta_lr, move_thetas

BALANCERS = {
    'Fixed': dict(type='FixedWeighting'),
    'GoR ratio': dict(type='GoRWeighting'),
    'GoR zero-sum': dict(type='GoRWeighting', form='zero_sum'),
    'GoR barrier': dict(type='GoRWeighting', form='barrier'),
    'GoR gradient': dict(type='GoRWeighting', form='gradient'),
    'Uncertainty': dict(type='UncertaintyWeighting'),
    'Uncertainty, revised': dict(type='RevisedUncertaintyWeighting'),
    'UW-SO': dict(type='UWSOWeighting'),
    'DWA': dict(type='DWAWeighting', interval=20),
    'RLW': dict(type='RLWWeighting'),
    'Geometric mean': dict(type='GeometricMeanWeighting'),
    'FAMO': dict(type='FAMOWeighting'),
    'GradNorm': dict(type='GradNormWeighting'),
    'IMTL-G': dict(type='IMTLGWeighting'),
    'PCGrad': dict(type='PCGradWeighting'),
    'CAGrad': dict(type='CAGradWeighting'),
    'MGDA': dict(type='MGDAWeighting'),
}
FACTORS = (1.0, 1000.0, 0.001)
WARM_UP = 2
TRUNK, HEAD, WIDTH, BATCH = 8, 4, 256, 256


def layers(count: int, width: int) -> nn.Sequential:
    """``count`` linear layers with activations."""
    return nn.Sequential(
        *[
            layer
            for _ in range(count)
            for layer in (nn.Linear(width, width), nn.Tanh())
        ]
    )


class Training:
    """A student, its data and its balancer.

    Args:
        cfg (dict): Config of the balancer.
        args (Namespace): Arguments of the script.
    """

    def __init__(self, cfg: dict, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        device = args.device
        self.trunk = layers(TRUNK, WIDTH).to(device)
        self.head = layers(HEAD, WIDTH).to(device)
        truth, teacher = (nn.Linear(WIDTH, WIDTH).to(device) for _ in range(2))
        self.inputs = torch.randn(BATCH, WIDTH, device=device)
        with torch.no_grad():
            self.target = truth(self.inputs).sin()
            # The teacher is partly right, on a scale of its own.
            self.taught = 0.7 * self.target + 0.3 * teacher(self.inputs).sin()
        self.weighting = MODELS.build(cfg).to(device).train()
        parameters = [
            *self.trunk.parameters(),
            *self.head.parameters(),
            *self.weighting.parameters(),
        ]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=1e-3, weight_decay=0.0
        )
        if list(self.weighting.parameters()):
            rate = default_theta_lr(self.weighting, args.steps)
            move_thetas(self.weighting, self.optimizer, rate)

    def step(self, factor: float = 1.0) -> dict[str, Any]:
        """One training step with the distillation loss in another unit."""
        shared = self.trunk(self.inputs)
        out = self.head(shared)
        task = (out - self.target).square().mean()
        kd = (out - self.taught).abs().mean() * factor
        weighted = self.weighting(
            dict(loss_cls=task), dict(loss_kd_out=kd), [shared]
        )
        total = sum(v for k, v in weighted.items() if 'loss' in k)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        return weighted


def shares(cfg: dict, factor: float, args: argparse.Namespace) -> str:
    """Share of the KD loss / of its gradient at the end, in per cent."""
    training = Training(cfg, args)
    losses, gradients = [], []
    for number in range(args.steps):
        last = number >= args.steps * 0.9
        training.weighting.measure_gradients = last
        out = training.step(factor if number >= args.steps * 0.1 else 1.0)
        if last:
            task, kd = out['loss_cls'].item(), out['loss_kd_out'].item()
            losses.append(100 * kd / (task + kd))
            # The ratio is infinite where the task's weight is 0.
            gradients.append(100 - 100 / (1 + out['gor_grad_ratio'].item()))
    return f'{fmean(losses):.1f} / {fmean(gradients):.1f}'


def scale_table(args: argparse.Namespace) -> None:
    """Print the shares of the KD loss for each balancer and factor."""
    heads = [f'KD loss x {factor:g}' for factor in FACTORS]
    print('\nShare of the KD loss / of its gradient, in per cent:\n')
    print('| balancer | ' + ' | '.join(heads) + ' |')
    print('|---|' + '---:|' * len(heads))
    for name, cfg in BALANCERS.items():
        cells = [shares(cfg, factor, args) for factor in FACTORS]
        print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)


def measure_costs(args: argparse.Namespace, weights: Path) -> dict[str, list]:
    """Time of each balancer's steps in seconds, one value per round."""
    batch = make_batch(args, args.device)
    model, wrapper = build(student_config('gor'), args, weights)
    # All balancers share one model. If it were trained, its gradients would
    # soon vanish.
    for group in wrapper.optimizer.param_groups:
        group['lr'] = 0.0
    step = step_of(model, wrapper, batch)
    weightings = {
        name: MODELS.build(cfg).to(args.device).train()
        for name, cfg in BALANCERS.items()
    }
    for weighting in weightings.values():
        model.gor_weighting = weighting
        # Past GoR's balanced start, in which every call is measured.
        for _ in range(WARM_UP + getattr(weighting, 'init_iters', 0)):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in weightings}
    for _ in range(args.rounds):
        for name, weighting in weightings.items():
            model.gor_weighting = weighting
            seconds[name].append(timed(step, args.device))
    return seconds


def cost_table(args: argparse.Namespace, weights: Path) -> None:
    """Print the time of a step, also relative to fixed weights."""
    seconds = measure_costs(args, weights)
    height, width = args.size
    print(
        f'\nTime of a step (batch {args.batch} x 3 x {height} x {width}, '
        f'{args.device}):\n'
    )
    print('| balancer | time in ms | relative to fixed weights |')
    print('|---|---:|---:|')
    for name, values in seconds.items():
        ratio = fmean(values) / fmean(seconds['Fixed'])
        print(f'| {name} | {1000 * fmean(values):.0f} | {ratio:.2f} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--device', default='cpu')
    parser.set_defaults(size=[256, 320])
    args = parser.parse_args()
    register_all_modules()
    weights = Path('work_dirs/benchmark_teachers')
    save_teachers(weights)
    scale_table(args)
    cost_table(args, weights)


if __name__ == '__main__':
    main()
