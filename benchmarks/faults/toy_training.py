"""A tiny student of a tiny teacher, whose training can be ended at any moment.

What the campaigns share: the config, a training in a process of its own that
costs no imports (a fork), and its state as numbers that can be compared.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault('TORCHDYNAMO_DISABLE', '1')  # compiling takes longer
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.config import config as config_module
from mmengine.runner import Runner

from mmgor.distillation.teachers import fast_form, teacher
from mmgor.hooks import ExactResumeHook, gor_weight_hook
from mmgor.io.resume import checkpoints_of, keep_seed
from mmgor.io.training_log import read_scalars
from mmgor.stop_signals import stop_requests
from tests.support.training import (
    scene_teacher,
    tiny_scenes,
    training_config,
)

torch.set_num_threads(1)
register_all_modules()

STEPS = 6
EPOCHS = 3  # of two iterations each
SECONDS = 120
_MEASURED = 'time', 'data_time', 'memory'


class Setup(NamedTuple):
    """How a training reads its data, and what it saves.

    Args:
        loop (str): 'iterations' or 'epochs'.
        workers (int): Processes that read the data.
        interval (int): Of checkpoints, in units of the loop.
        val_interval (int): Of evaluations, in units of the loop.
        best (bool): Whether the best checkpoint by mAP is kept.
        seed (bool): Whether the config has one.
    """

    loop: str
    workers: int = 0
    interval: int = 1
    val_interval: int = 2
    best: bool = False
    seed: bool = True


SETUPS = {
    'iterations, 2 workers': Setup('iterations', 2, 2, 4),
    'iterations, no workers': Setup('iterations', 0, 2, 4),
    'epochs, no workers': Setup('epochs'),
    'epochs, 2 workers': Setup('epochs', 2),
    'epochs, best': Setup('epochs', val_interval=1, best=True),
    'iterations, best, no seed': Setup(
        'iterations', 0, 2, 2, best=True, seed=False
    ),
    'epochs, every second': Setup('epochs', interval=2),
    'epochs, every second, best': Setup('epochs', 0, 2, 1, best=True),
    'epochs, 2 workers, no seed': Setup('epochs', 2, seed=False),
}


class Scenes:
    """Images and a teacher, which all trainings of a campaign share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.root = tiny_scenes(folder / 'scenes')
        self.teacher = scene_teacher(folder)

    def config(self, work_dir: Path, setup: str) -> Config:
        """QAT at W4A4, three KD heads, GoR, EMA and random flips.

        Args:
            work_dir (Path): Of the training.
            setup (str): One of :data:`SETUPS`.
        """
        chosen = SETUPS[setup]
        by_epoch = chosen.loop == 'epochs'
        config = training_config(self.root, work_dir, self.teacher, EPOCHS)
        config.model.kd_heads.boxes = dict(type='DetectionKDHead')
        data = config.train_dataloader
        data.num_workers = chosen.workers
        pack = data.dataset.pipeline[-1]
        pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
        data.dataset.pipeline.insert(-1, dict(type='RandomFlip', prob=0.5))
        config.custom_hooks.append(
            ConfigDict(type='EMAHook', momentum=0.05, update_buffers=True)
        )
        config.default_hooks.logger.log_metric_by_epoch = by_epoch
        config.default_hooks.checkpoint = dict(
            type='SafeCheckpointHook',
            interval=chosen.interval,
            by_epoch=by_epoch,
            max_keep_ckpts=2,
            save_best='coco/bbox_mAP' if chosen.best else None,
        )
        if not chosen.seed:
            config.pop('randomness')
        warm_up = dict(
            type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4
        )
        if by_epoch:
            decay = dict(type='MultiStepLR', milestones=[1, 2], by_epoch=True)
            config.train_cfg.val_interval = chosen.val_interval
        else:
            decay = dict(type='CosineAnnealingLR', T_max=STEPS, by_epoch=False)
            config.train_cfg = dict(
                type='IterBasedTrainLoop',
                max_iters=STEPS,
                val_interval=chosen.val_interval,
            )
            data.sampler = dict(type='InfiniteSampler')
            config.log_processor = dict(by_epoch=False)
        config.param_scheduler = [warm_up, decay]
        return config

    def train(self, work_dir: Path, setup: str, resume: bool = False) -> None:
        """Train as tools/train.py does.

        Args:
            work_dir (Path): Of the training.
            setup (str): One of :data:`SETUPS`.
            resume (bool): From the newest good checkpoint.
        """
        config = self.config(work_dir, setup)
        config.resume = resume
        # For mmengine, which draws a seed. A start without a checkpoint has
        # to draw that of the undisturbed training.
        np.random.seed(os.getpid() if checkpoints_of(work_dir) else 0)
        keep_seed(config)
        with stop_requests() as request:
            runner = Runner.from_cfg(config)
            runner.register_hook(ExactResumeHook(request))
            runner.train()


def make_cheap() -> None:
    """Leave out what takes most of the time and writes no state: the plot,
    the layout of config texts, and the choice of the teacher's form."""
    gor_weight_hook.plot_weight_curves = lambda *_: ''
    config_module.FormatCode = lambda text, **_: (text, True)
    fast_form.has_bfloat16 = lambda device: False
    teacher._NOISE = 64


def start(function: Callable[[], Any], log: Path) -> int:
    """Run a function in a process of its own, in a group of its own.

    Args:
        function (Callable): Without arguments.
        log (Path): Gets what it prints. It ends with status 1 if the function
            raises, and with the status of a SystemExit.

    Returns:
        int: Process id.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        function()
        status = 0
    except SystemExit as stop:
        print(stop, file=sys.stderr)
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int, kill_after: float | None = None) -> int:
    """Wait for a process of :func:`start`; end its group.

    Args:
        pid (int): The process.
        kill_after (float, optional): Seconds until it gets a SIGKILL.

    Returns:
        int: Exit status, or minus the number of the signal that ended it.

    Raises:
        TimeoutError: If it takes longer than :data:`SECONDS`.
    """
    begin, limit = time.monotonic(), kill_after or SECONDS
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() - begin >= limit:
            os.killpg(pid, signal.SIGKILL)
            if kill_after is None:
                os.waitpid(pid, 0)
                raise TimeoutError(f'no end after {limit} s')
        time.sleep(0.002)
    with suppress(ProcessLookupError):  # its workers
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(ended[1])


def end_state(work_dir: Path) -> dict[str, Any]:
    """What a training of :class:`Scenes` has led to.

    Returns:
        dict: Weights, thetas and step sizes, their average (EMA), the states
        of optimizer and schedulers, the best checkpoints, the names of all
        checkpoints, and all that was logged of iterations and evaluations
        but times.
    """
    last = work_dir / (work_dir / 'last_checkpoint').read_text().strip()
    content = torch.load(last, weights_only=True)
    keys = 'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'
    state = {key: content[key] for key in keys}
    state['reached'] = content['meta']['epoch'], content['meta']['iter']
    state['best'] = {
        path.name: torch.load(path, weights_only=True)['state_dict']
        for path in work_dir.glob('best_*.pth')
    }
    state['files'] = sorted(path.name for path in work_dir.glob('*.pth'))
    state['log'] = log = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for record in read_scalars(file):
            kept = {k: v for k, v in record.items() if k not in _MEASURED}
            log['loss' in record, record['step']] = kept
    return state


def differences(a: Any, b: Any, path: str = '') -> list[str]:
    """Where two nested structures differ, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict) and set(a) == set(b):
        return [
            place
            for key in a
            for place in differences(a[key], b[key], f'{path}.{key}')
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, type(a)):
        a, b = dict(enumerate(a)), dict(enumerate(b))
        return differences(a, b, path)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if _same_bits(a, b) else [path]
    return [] if a == b else [path]


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return a.numpy().tobytes() == b.numpy().tobytes()
