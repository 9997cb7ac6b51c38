"""Train toy students on configs that were changed at random.

One or two settings of the quantization, the distillation, the weighting or
their hooks get an odd value, another name or another form, are left out, or
get a setting beside them that nobody knows. Each config must either train two
steps, or raise one error that names a setting that was changed. In a trained
step all quantizers have rounded, and the KD losses are in the sum. A setting
of a wrong name must never be trained.

Not hypothesis but ``random`` with a seed per case draws the changes. Failures
are printed by kind, each with the seed of its first case.

python -m benchmarks.faults.fuzz_configs [--cases 1000] [--first 0]
"""

import argparse
import logging
import math
import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from benchmarks.faults.drawn_configs import Change, draw_config, places
from benchmarks.faults.toy_student import make_runner, save_teacher
from mmgor.hooks.broken_state import broken_tensors
from mmgor.quantization import quantized_layers
from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.weighting import FixedWeighting

# Errors that no setting may end in: they come from deep inside.
_CRUDE = (AssertionError, AttributeError, IndexError, KeyError)


class Fault(Exception):
    """A config was trained, but not as it says."""


class Calls(Hook):
    """Counts the calls of each quantizer, and keeps the last losses."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.outputs: dict[str, Any] = {}

    def before_train(self, runner: Runner) -> None:
        for name, module in runner.model.named_modules():
            if isinstance(module, BaseQuantizer):
                self.counts[name] = 0
                module.register_forward_hook(partial(self._count, name))

    def _count(self, name: str, module: Any, *_: Any) -> None:
        self.counts[name] += module.training

    def after_train_iter(self, *_: Any, outputs: Any, **__: Any) -> None:
        self.outputs = outputs


def train(cfg: dict[str, Any], folder: Path, name: str) -> None:
    """Train two steps, and make sure that all parts took part.

    Args:
        cfg (dict): From :func:`draw_config`, or changed.
        folder (Path): To write into.
        name (str): Of the run.

    Raises:
        Fault: If quantizers or KD losses did nothing, silently.
    """
    calls = Calls()
    hooks = [*cfg['custom_hooks'], calls]
    runner = make_runner(cfg['model'], folder, name, hooks)
    runner.train()
    check(runner.model, calls)


def check(model: Any, calls: Calls) -> None:
    """Make sure that a step trained what the config names.

    Raises:
        Fault: If a quantizer, a KD loss or a weight is not what it should be.
    """
    idle = [name for name, count in calls.counts.items() if not count]
    if idle or not calls.counts:
        raise Fault(f'quantizers that rounded nothing: {idle[:3]}')
    with torch.no_grad():
        for name, layer in quantized_layers(model).items():
            quantizer = layer.weight_quantizer
            rounded = quantizer(layer.channels_first()).flatten(1)
            if max(len(row.unique()) for row in rounded) > 2**quantizer.bits:
                raise Fault(f'{name} is not on {quantizer.bits} bits')
    outputs = {name: value.item() for name, value in calls.outputs.items()}
    broken = [
        name
        for name, value in outputs.items()
        # MGDA may give a loss the weight 0, and the ratio is then infinite.
        if not math.isfinite(value) and name != 'gor_grad_ratio'
    ]
    broken += broken_tensors(model)
    if broken:
        raise Fault(f'not finite after a step: {broken[:3]}')
    kd = {n: outputs.get(f'loss_kd_{n}') for n in model.kd_heads}
    if None in kd.values():
        raise Fault(f'KD losses: {kd}')
    for name, wanted, found in (
        ('loss_kd', outputs['gor_w_kd'] * outputs['gor_raw_kd'], kd.values()),
        (
            'loss',
            outputs['loss'],
            [v for n, v in outputs.items() if n.startswith('loss_')],
        ),
    ):
        if not math.isclose(sum(found), wanted, rel_tol=1e-3, abs_tol=1e-6):
            raise Fault(f'{name} is {wanted}, its parts {list(found)}')
    by_hand = isinstance(model.gor_weighting, FixedWeighting)
    if not outputs['gor_w_kd'] and not by_hand:
        raise Fault('the KD losses have the weight 0')


def outcome(seed: int, teacher: dict, folder: Path) -> tuple[str, str]:
    """What becomes of one changed config.

    Args:
        seed (int): Draws the config and its changes.
        teacher (dict): From :func:`save_teacher`.
        folder (Path): To write into.

    Returns:
        tuple[str, str]: 'trained', 'refused', or else the kind of the fault;
        and what was changed, with the error.
    """
    rng = random.Random(seed)
    cfg = draw_config(rng, teacher)
    first, *others = rng.sample(places(cfg), rng.choice([1, 1, 1, 2]))
    # Not two changes in one part: one may undo the other.
    paths = [first, *(p for p in others if not {*first} & {*p[1:]})]
    if rng.random() < 0.1:
        paths = []  # what was drawn must train
    changes = [Change(rng, cfg, path) for path in paths]
    story = '; '.join(change.what for change in changes)
    try:
        train(cfg, folder, f'{folder.name}_{seed}')
    except Fault as fault:
        return f'Fault: {fault}', story
    except Exception as error:
        story += f'\n    {type(error).__name__}: {error}'
        fault = unclear(error, [n for c in changes for n in c.names])
        return fault or 'refused', story
    if all(change.may_train for change in changes):
        return 'trained', story
    return 'a setting of a wrong name was trained', story


def unclear(error: Exception, names: Sequence[str]) -> str:
    """The kind of an error that does not tell which setting is wrong; else ''.

    Args:
        error (Exception): From a training.
        names (Sequence[str]): Words of which the message should have one.
    """
    if any(name in str(error) for name in names) and not isinstance(
        error, _CRUDE
    ):
        return ''
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f'{"/".join(Path(frame.filename).parts[-3:])}:{frame.lineno}'
    return f'{type(error).__name__} at {place} in {frame.name}'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--cases', type=int, default=1000)
    parser.add_argument('--first', type=int, default=0, help='first seed')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    logging.disable(logging.ERROR)
    counts: Counter[str] = Counter()
    seed = args.first
    with tempfile.TemporaryDirectory() as folder:
        teacher = save_teacher(Path(folder))
        try:
            for seed in range(args.first, args.first + args.cases):
                kind, story = outcome(seed, teacher, Path(folder))
                if kind not in ('trained', 'refused') and not counts[kind]:
                    print(f'seed {seed}: {kind}\n    {story}', flush=True)
                counts[kind] += 1
                if not (seed + 1) % 50:
                    print(f'{counts.total()} of {args.cases}', flush=True)
        except KeyboardInterrupt:
            print(f'stopped; go on with --first {seed}')
    for kind, count in counts.most_common():
        print(f'{count:5} {kind}')
    return int(bool({*counts} - {'trained', 'refused'}))


if __name__ == '__main__':
    raise SystemExit(main())
