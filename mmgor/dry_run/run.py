"""A training that stops after a few steps and leaves nothing behind."""

import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from time import perf_counter
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmgor.hooks.student import unwrapped_model
from mmgor.quantization import counting_macs, float_line

from .description import (
    bit_lines,
    data_lines,
    hook_lines,
    model_lines,
    optimizer_lines,
)

#: The first step compiles; the others are timed.
STEPS = 3


def dry_run(cfg: Config, build: Callable[[Config], Runner]) -> None:
    """Start a training, take a few steps, and print what it will take.

    Everything is built, loaded and calibrated as in training, and fails as it
    would there. Logs and checkpoints go to a temporary folder, which is
    removed.

    Args:
        cfg (Config): Of the training; changed in place.
        build (Callable): Makes a Runner of it.
    """
    _say(
        f'dry run: {STEPS} steps of this training; nothing is written to '
        f'{cfg.work_dir}'
    )
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.log_level = 'WARNING'
        # Backends may write elsewhere or open a run on a server.
        if isinstance(cfg.get('visualizer'), dict):
            # A later Runner of the process would get one of the same name.
            cfg.visualizer.update(name='dry run', vis_backends=None)
        saving = (cfg.get('default_hooks') or {}).get('checkpoint')
        if isinstance(saving, dict):
            saving.pop('out_dir', None)
        runner = build(cfg)
        runner.register_hook(_FirstSteps(), priority='LOWEST')
        _say('building, loading and calibrating ...')
        try:
            runner.train()
        except _Enough:
            return


class _Enough(Exception):
    """Ends the training."""


class _FirstSteps(Hook):
    """Describes a training, times its first steps and ends it."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._started = 0.0
        self._steps = 0
        self._counting = ExitStack()
        self._macs: dict[str, int] = {}

    def before_train(self, runner: Runner) -> None:
        model = unwrapped_model(runner)
        hooks = [hook for hook in runner.hooks if hook is not self]
        for lines in (
            model_lines(model),
            bit_lines(model),
            optimizer_lines(runner.optim_wrapper, model),
            data_lines(runner),
            hook_lines(hooks),
        ):
            _say('\n'.join(lines))
        self._steps = runner.max_iters - runner.iter
        if not self._steps:
            _say('there is no step to take')
            raise _Enough
        self._macs = self._counting.enter_context(counting_macs(model))
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._started = perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = perf_counter()
        self._times.append(now - self._started)
        done = len(self._times)
        loss = float(outputs['loss'].detach())
        _say(f'step {done}: {self._times[-1]:.2f} s, loss {loss:.4f}')
        if done == 1:
            self._counting.close()
            line, _ = float_line(unwrapped_model(runner), self._macs)
            _say(line[0].lower() + line[1:])
        if done == STEPS or _evaluates_next(runner):
            _say(memory_line())
            _say(time_line(self._times, self._steps))
            raise _Enough
        self._started = perf_counter()


def _evaluates_next(runner: Runner) -> bool:
    """Whether the loop evaluates, or saves an epoch, after this step."""
    done = runner.iter + 1
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        last = done == runner.max_iters
        return last or done % runner.val_interval == 0
    return done % (runner.max_iters // runner.max_epochs) == 0


def memory_line() -> str:
    """The largest memory that the process has held so far."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == 'darwin' else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = f'memory: at most {peak / 1e9:.2f} GB in this process'
    if torch.cuda.is_available():
        used = torch.cuda.max_memory_allocated()
        held = torch.cuda.max_memory_reserved()
        line += (
            f', and {used / 1e9:.2f} GB in tensors on the GPU '
            f'({held / 1e9:.2f} GB reserved)'
        )
    return line


def time_line(times: list[float], steps: int) -> str:
    """How long a training takes.

    Args:
        times (list[float]): Seconds of its first steps, at least one.
        steps (int): How many steps it has.

    Example:
        >>> time_line([9.0, 1.0, 3.0], 1800)
        'time: 1:00:00 (h:mm:ss) for 1800 steps without evaluation, from \
the mean of steps 2 to 3, 2.00 s; step 1 compiles'
        >>> time_line([9.0], 2)
        'time: 0:00:18 (h:mm:ss) for 2 steps without evaluation, from step 1 \
alone, 9.00 s, which compiles'
    """
    timed = times[1:] or times
    mean = sum(timed) / len(timed)
    source = f'the mean of steps 2 to {len(times)}, {mean:.2f} s; step 1 '
    if len(times) == 2:
        source = f'step 2, {mean:.2f} s; step 1 '
    if len(times) == 1:
        source = f'step 1 alone, {mean:.2f} s, which '
    return (
        f'time: {timedelta(seconds=round(mean * steps))} (h:mm:ss) for '
        f'{steps} steps without evaluation, from {source}compiles'
    )


@master_only
def _say(text: str) -> None:
    print(text, flush=True)
