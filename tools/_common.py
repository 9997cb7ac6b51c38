"""Flags, configs and runners of the command-line tools."""

import argparse
import os
import sys
from pathlib import Path

try:
    import mmgor

    if mmgor.__file__ is None:  # another folder called mmgor, without code
        raise ModuleNotFoundError(name='mmgor')
except ModuleNotFoundError as error:
    if error.name != 'mmgor':
        raise
    # mmgor is not installed: import it from the checkout.
    sys.modules.pop('mmgor', None)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import mmgor

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmgor.compat import silence_log
from mmgor.io import config_reader
from mmgor.io.checkpoint_reader import protect_loading
from mmgor.strategies import check_strategy


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add mmdet's flag for config entries."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries: key=value, lists as key="[a,b]" or '
        'key=a,b, nested lists as key="[(a,b),(c,d)]", without spaces',
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that mmdet's train and test tools have in common."""
    parser.add_argument(
        '--work-dir', help='folder for logs, checkpoints and metrics'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes --local-rank from torch 2.0 on,
    # --local_rank before; torchrun sets LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: argparse.Namespace) -> Config:
    """Load the config and apply ``--cfg-options``.

    Args:
        args (Namespace): With ``config`` and ``cfg_options``.

    Raises:
        FileNotFoundError: If the config does not exist.
        RuntimeError: If it can't be read.
    """
    cfg = config_reader.read_config(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    return cfg


def read_config(args: argparse.Namespace) -> Config:
    """Load the config, apply the common flags, set the work directory.

    Args:
        args (Namespace): The common flags and ``config``.

    Raises:
        FileNotFoundError: If the config does not exist.
        ValueError: If a student's parameters would be split.
        RuntimeError: If several processes are to run without a GPU.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    check_strategy(cfg)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build mmengine's Runner, or the one that the config names.

    The checkpoints that it loads cannot run code: see
    :func:`protect_loading`.
    """
    protect_loading()
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    silence_log(runner.logger)
    return runner
