"""Train a detector; the flags are the same as in mmdet's tools/train.py.

python tools/train.py configs/gor/retinanet_r18_w4_from_r101.py
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from _common import add_common_arguments, build_runner, read_config
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.device import get_device

from mmgor.datasets import check_evaluation_data, check_training_data
from mmgor.dry_run import dry_run
from mmgor.hooks import ExactResumeHook
from mmgor.io.resume import find_checkpoint, keep_seed
from mmgor.stop_signals import stop_requests


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector')
    parser.add_argument('config', help='training config file')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='automatic mixed precision: float16 on a GPU, bfloat16 on a CPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a value, from the newest '
        'intact one in the work directory',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='print what would be trained, take three steps, estimate time '
        'and memory, and write nothing',
    )
    add_common_arguments(parser)
    return parser.parse_args()


def apply_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Put --amp, --auto-scale-lr and --resume into the config.

    Args:
        cfg (Config): Changed in place.
        args (Namespace): The flags.

    Raises:
        RuntimeError: If the config lacks the base batch size that scaling
            the learning rate needs.
    """
    if args.amp and get_device() == 'cpu':  # AmpOptimWrapper refuses CPUs
        cfg.optim_wrapper.type = 'Bfloat16OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):  # of AmpOptimWrapper
            cfg.optim_wrapper.pop(key, None)
    elif args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        scale = cfg.get('auto_scale_lr') or {}
        if not {'enable', 'base_batch_size'} <= set(scale):
            raise RuntimeError(
                '--auto-scale-lr expected auto_scale_lr=dict(enable=..., '
                f'base_batch_size=...) in the config, got {dict(scale)}.'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume == 'auto':
        resume_newest(cfg)
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume


def resume_newest(cfg: Config) -> None:
    """Resume from the newest intact checkpoint of the work directory.

    If there is none, training starts from ``load_from``. (mmdet's tool would
    drop ``load_from``.)
    """
    found = find_checkpoint(cfg.work_dir)
    if found is None and cfg.get('load_from'):
        print(
            f'no checkpoint to resume in {cfg.work_dir}: training starts from '
            f'load_from={cfg.load_from}.'
        )
        cfg.resume = False
    else:
        cfg.resume, cfg.load_from = True, found


def train(cfg: Config) -> None:
    """Train; SIGTERM and Ctrl-C leave a checkpoint to resume from.

    Args:
        cfg (Config): Of the training.

    Raises:
        SystemExit: If a signal has ended the training.
    """
    command = resume_command(sys.argv)
    if cfg.launcher != 'none':
        command += ' (with the launcher of this start)'
    with stop_requests() as request:
        try:
            keep_seed(cfg)
            runner = build_runner(cfg)
            runner.register_hook(ExactResumeHook(request, command), 'LOWEST')
            runner.train()
        except KeyboardInterrupt:
            raise SystemExit(
                f'stopped at once. Go on from the last checkpoint: {command}'
            ) from None


def resume_command(argv: list[str]) -> str:
    """The line that goes on with a training.

    Args:
        argv (list[str]): The script of this one and its arguments.

    Example:
        >>> resume_command(['tools/train.py', 'a.py', '--resume', 'b.pth'])
        'python tools/train.py a.py --resume'
    """
    script, *words = argv
    words = [word for word in words if not word.startswith('--resume=')]
    if '--resume' in words:
        place = words.index('--resume')
        file = words[place + 1 : place + 2]
        given = bool(file) and not file[0].startswith('-')
        del words[place : place + 1 + given]
    installed = '.mim' in Path(script).parts
    start = ['mmgor', 'train'] if installed else ['python', script]
    return shlex.join([*start, *words, '--resume'])


def main() -> None:
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    cfg = read_config(args)
    apply_flags(cfg, args)
    # Only once: large annotation files take long to read.
    if os.environ['LOCAL_RANK'] == '0':
        check_training_data(cfg.get('train_dataloader'))
        if cfg.get('val_cfg') is not None:
            val = cfg.get('val_dataloader'), cfg.get('val_evaluator')
            check_evaluation_data(*val)
    if args.dry_run:
        dry_run(cfg, build_runner)
    else:
        train(cfg)


if __name__ == '__main__':
    main()
