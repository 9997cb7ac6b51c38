"""Put NaN and infinity into a training, at every place where one may arise.

A toy student trains for eight steps with a teacher, under GoR. Before a random
step, a number is broken: once (in pixels, a loss, a gradient, what the teacher
returns), or for good (in a weight, a step size, a theta, a running mean, a
teacher, the optimizer's or the loss scaler's state). A step that is not finite
must change no weight, be in the log, and be followed by steps that train. If
the number stays, one error must name what is broken. No weight may be broken
when training ends without an error.

python -m benchmarks.faults.broken_numbers [--rounds 4] [--first 0]
"""

import argparse
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.hooks import Hook
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from benchmarks.faults.toy_student import (
    Images,
    make_runner,
    save_teacher,
    shallow,
)
from mmgor.hooks.broken_state import broken_tensors
from tests.support.models import student_cfg

VALUES = dict(nan=float('nan'), inf=float('inf'), minus_inf=-float('inf'))
STEPS, MOST = 8, 3


class Place:
    """Where a number is broken.

    Attributes:
        runner (Runner): The training.
        rng (Random): Chooses the number.
        value (float): What it becomes.
        name (str): What an error may name it by; '' if it does not stay.
    """

    def __init__(self, runner: Runner, rng: random.Random, value: float):
        self.runner, self.rng, self.value = runner, rng, value
        self.model: Any = runner.model
        self.name = ''
        self._undo: list[Callable[[], Any]] = []

    def undo(self) -> None:
        """Take the break away again, if it is for one step."""
        while self._undo:
            self._undo.pop()()

    def one_of(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor with one broken number."""
        flat = tensor.detach().clone().flatten()
        flat[self.rng.randrange(len(flat))] = self.value
        return flat.reshape(tensor.shape)

    def keep(self, name: str, tensor: Tensor) -> None:
        """Break one number of a tensor for good."""
        self.name = name
        with torch.no_grad():
            tensor.copy_(self.one_of(tensor))

    def wrap(self, module: nn.Module) -> None:
        """Break one number of what a module returns, for one step."""
        handle = module.register_forward_hook(self._spoil)
        self._undo.append(handle.remove)

    def _spoil(self, module: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return output + (self.one_of(output) - output.detach())
        i = self.rng.randrange(len(output))
        changed = list(output)
        changed[i] = self._spoil(module, inputs, output[i])
        return tuple(changed)


def pixels(place: Place, batch: Any) -> None:
    batch['inputs'] = [place.one_of(x.float()) for x in batch['inputs']]


def features(place: Place, batch: Any) -> None:
    place.wrap(place.rng.choice([place.model.backbone, place.model.neck]))


def loss(place: Place, batch: Any) -> None:
    stock = place.model.bbox_head.loss

    def broken(*args: Any, **kwargs: Any) -> dict:
        losses = stock(*args, **kwargs)
        key = place.rng.choice(list(losses))
        losses[key] = [x + place.value for x in losses[key]]
        return losses

    place.model.bbox_head.loss = broken
    place._undo.append(lambda: place.model.bbox_head.__dict__.pop('loss'))


def kd_loss(place: Place, batch: Any) -> None:
    place.wrap(place.rng.choice([*place.model.kd_heads.values()]))


def teacher_output(place: Place, batch: Any) -> None:
    teacher = place.model.teachers['big'].model
    place.wrap(place.rng.choice([teacher.neck, teacher.bbox_head]))


def gradient(place: Place, batch: Any) -> None:
    named = [p for p in place.model.parameters() if p.requires_grad]
    parameter = place.rng.choice(named)
    handle = parameter.register_hook(place.one_of)
    place._undo.append(handle.remove)


def _parameter(place: Place, model: nn.Module, word: str) -> None:
    named = {k: v for k, v in model.named_parameters() if word in k}
    name = place.rng.choice(sorted(named))
    place.keep(name, named[name])


def weight(place: Place, batch: Any) -> None:
    _parameter(place, place.model.backbone, 'weight')


def scale(place: Place, batch: Any) -> None:
    _parameter(place, place.model, 'log_scale')


def theta(place: Place, batch: Any) -> None:
    _parameter(place, place.model, 'theta')


def average(place: Place, batch: Any) -> None:
    named = dict(place.model.named_buffers())
    kinds = 'running_', 'gor_weighting.'
    sound = [
        k
        for k, v in named.items()
        if any(kind in k for kind in kinds) and v.is_floating_point()
    ]
    name = place.rng.choice(sound)
    place.keep(name, named[name])


def teacher_weight(place: Place, batch: Any) -> None:
    _parameter(place, place.model.teachers['big'].model, '')


def optimizer_state(place: Place, batch: Any) -> None:
    optimizer = place.runner.optim_wrapper.optimizer
    names = {p: n for n, p in place.model.named_parameters()}
    parameter = place.rng.choice([p for p in optimizer.state if p in names])
    part = place.rng.choice(['exp_avg', 'exp_avg_sq'])
    place.keep(names[parameter], optimizer.state[parameter][part])


def loss_scale(place: Place, batch: Any) -> None:
    place.name = 'loss scaler'
    place.runner.optim_wrapper.loss_scaler._scale.fill_(place.value)


#: Each place, and whether the broken number stays.
PLACES = {
    **dict.fromkeys((pixels, features, loss, kd_loss, gradient), False),
    teacher_output: False,
    **dict.fromkeys((weight, scale, theta, average, teacher_weight), True),
    **dict.fromkeys((optimizer_state, loss_scale), True),
}


class Break(Hook):
    """Breaks a number before one step; runs before all other hooks, if it is
    the first of their list."""

    priority = 'HIGHEST'

    def __init__(self, make: Callable, rng: random.Random, value: float):
        self.make, self.rng, self.value = make, rng, value
        self.at = rng.randrange(1, STEPS - MOST)
        self.place: Any = None

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        if runner.iter == self.at:
            self.place = Place(runner, self.rng, self.value)
            self.make(self.place, data_batch)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        if runner.iter == self.at:
            self.place.undo()


class Look(Hook):
    """Notes after each step what has become of it; runs after all others."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.told: list[str] = []
        self.weights: list[dict[str, Tensor]] = []
        self.finite: list[bool] = []

    def before_train(self, runner: Runner) -> None:
        runner.logger.warning = self.told.append
        runner.logger.info = self.told.append

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        if not self.weights:
            self._note(runner)

    def after_train_iter(
        self, runner: Runner, *_: Any, outputs: Any = None, **__: Any
    ) -> None:
        self.finite.append(bool(torch.isfinite(outputs['loss'])))
        self._note(runner)

    def _note(self, runner: Runner) -> None:
        self.weights.append(
            {k: v.detach().clone() for k, v in runner.model.named_parameters()}
        )


def run(
    make: Callable, value: float, seed: int, spec: dict, folder: Path
) -> str:
    """Train with one broken number; returns what came of it.

    Args:
        make (Callable): One of :data:`PLACES`.
        value (float): What the number becomes.
        seed (int): Chooses the step and the number.
        spec (dict): From :func:`save_teacher`.
        folder (Path): To write into.

    Returns:
        str: 'dropped', 'absorbed' or 'stopped', or what is wrong.
    """
    rng = random.Random(seed)
    model = shallow(student_cfg(spec))
    model.kd_heads.neck.strides = [8, 16]
    model.gor_weighting.init_iters = rng.choice([1, 20])
    hook, look = Break(make, rng, value), Look()
    hooks = [
        hook,
        dict(type='QuantCalibrationHook', num_batches=1),
        dict(type='GoRWeightHook'),
        dict(type='NonFiniteLossHook', max_consecutive=MOST),
        look,
    ]
    name = f'{folder.name}_{make.__name__}_{value}_{seed}'
    loop = dict(by_epoch=False, max_iters=STEPS)
    data = dict(
        dataset=Images(),
        sampler=dict(type='InfiniteSampler'),
        batch_size=1,
        num_workers=0,
    )
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-3),
        clip_grad=dict(max_norm=10.0),
    )
    if make is loss_scale:
        wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
    with scaling_on_a_cpu():
        runner = make_runner(
            model,
            folder,
            name,
            hooks,
            train_dataloader=data,
            train_cfg=loop,
            optim_wrapper=wrapper,
        )
        try:
            runner.train()
        except Exception as error:
            return _stopped(error, hook.place)
    return _went_on(runner, look)


@contextmanager
def scaling_on_a_cpu() -> Iterator[None]:
    """Let mmengine's AmpOptimWrapper scale losses without a GPU."""
    cpu = partial(torch.amp.GradScaler, 'cpu')
    patch = partial(mock.patch.object, amp_optimizer_wrapper)
    with patch('is_cuda_available', lambda: True), patch('GradScaler', cpu):
        yield


def _stopped(error: Exception, place: Place) -> str:
    """What is wrong with an error; 'stopped' if nothing."""
    text = f'{type(error).__name__}: {error}'
    if not isinstance(error, RuntimeError):
        return text
    if not place.name or place.name not in text:
        return f'{place.name or "it came once, but training stops"}: {text}'
    return 'stopped'


def _went_on(runner: Runner, look: Look) -> str:
    """What is wrong with a training that ended; what came of it, if nothing"""
    broken = broken_tensors(runner.model)
    if broken:
        return f'ended with {broken[:3]}'
    skipped = [i for i in range(STEPS) if _same(look, i)]
    said = [i for i in range(STEPS) if _said(look, i)]
    if skipped != said:
        return f'the steps {skipped} trained nothing, the log has {said}'
    if [i for i in range(STEPS) if not look.finite[i] and i not in said]:
        return f'a step that is not finite is not in the log: {look.finite}'
    if not _same(look, STEPS - 1):
        return 'dropped' if skipped else 'absorbed'
    return 'nothing is trained any more'


def _same(look: Look, i: int) -> bool:
    """Whether step i changed no weight."""
    before, after = look.weights[i], look.weights[i + 1]
    return all(torch.equal(before[k], after[k]) for k in before)


def _said(look: Look, i: int) -> bool:
    start = f'iteration {i + 1}:'
    return any(x.startswith(start) and 'skipped' in x for x in look.told)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--rounds', type=int, default=4, help='of all places and values'
    )
    parser.add_argument('--first', type=int, default=0, help='first round')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    logging.disable(logging.ERROR)
    seed = args.first
    counts: dict[str, Counter[str]] = {}
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        spec = save_teacher(Path(name))
        try:
            for seed in range(args.first, args.first + args.rounds):
                for make in PLACES:
                    for word, value in VALUES.items():
                        found = run(make, value, seed, spec, Path(name))
                        key = make.__name__
                        counts.setdefault(key, Counter())[found[:90]] += 1
                        if ' ' in found:
                            faults += 1
                            print(f'{key} {word} {seed}: {found}', flush=True)
                print(f'round {seed} is done', flush=True)
        except KeyboardInterrupt:
            print(f'stopped; go on with --first {seed}')
    for key, found in counts.items():
        print(f'{key:16}', dict(found))
    return int(faults > 0)


if __name__ == '__main__':
    raise SystemExit(main())
