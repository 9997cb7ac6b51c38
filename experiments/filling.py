"""What puts a data set and a number of epochs into any mmdet config."""

import inspect
from copy import deepcopy
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmgor.datasets.data_folder import DataFolder
from mmgor.io.config_reader import loader_datasets, type_name
from mmgor.registry import DATASETS

# A config need not have them: the runner has a default for each.
_RUNNER_KEYS = {*inspect.signature(Runner).parameters, 'custom_imports'}
_ANNOTATIONS = dict(train='train.json', val='eval.json', test='eval.json')
# Their classes are not those of the data.
_OTHER_PARTS = {'teachers', 'kd_heads', 'rpn_head', 'backbone', 'neck'}


def put_data(cfg: Config, data: DataFolder, root: str) -> None:
    """Put a data folder into a config: its files, classes and image size.

    The data set of each loader is found below any wrappers. ``Resize`` steps
    are limited to the longest side of the training images, so that none is
    enlarged.

    Args:
        cfg (Config): Is changed.
        data (DataFolder): Classes and image size.
        root (str): What the config is to have as the folder.

    Raises:
        ValueError: If a loader does not have exactly one data set in COCO
            format, or no head of the model has ``num_classes``.
    """
    for split, annotations in _ANNOTATIONS.items():
        dataset = _coco_dataset(cfg, f'{split}_dataloader')
        dataset.update(
            data_root=f'{root}/',
            ann_file=annotations,
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=data.classes),
        )
        for step in dataset.get('pipeline', []):
            if type_name(step) == 'Resize' and 'scale' in step:
                step.scale = tuple(min(s, data.side) for s in step.scale)
    for key in ('val_evaluator', 'test_evaluator'):
        metrics = cfg[key] if isinstance(cfg[key], list) else [cfg[key]]
        for metric in metrics:
            metric.ann_file = f'{root}/eval.json'
    if not _put_classes(cfg.model, len(data.classes)):
        raise ValueError(
            f'expected a head with num_classes in {cfg.filename}, got the '
            f'model {list(cfg.model)}.'
        )


def _coco_dataset(cfg: Config, loader: str) -> Any:
    found = loader_datasets(cfg, loader)
    kinds = [type_name(dataset) for dataset in found]
    coco = DATASETS.get('CocoDataset')
    if len(found) != 1 or not issubclass(DATASETS.get(kinds[0]), coco):
        raise ValueError(
            f'{cfg.filename}: expected one data set in {loader}, of type '
            f'CocoDataset or derived from it, got {kinds}; change the config.'
        )
    return found[0]


def _put_classes(part: Any, classes: int) -> bool:
    """Whether ``num_classes`` was found at any depth."""
    if isinstance(part, list | tuple):
        return sum(_put_classes(each, classes) for each in part) > 0
    if not isinstance(part, dict):
        return False
    found = 'num_classes' in part
    if found:
        part['num_classes'] = classes
    rest = [part[key] for key in part if key not in _OTHER_PARTS]
    return _put_classes(rest, classes) or found


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train for so many epochs and evaluate after the last one.

    Sets ``max_epochs`` and ``val_interval``, and ``end`` and ``T_max`` of the
    last scheduler where it has them; the rest of the schedule stays.

    Args:
        cfg (Config): Is changed.
        epochs (int): At least 1.

    Raises:
        ValueError: If the config counts iterations.
    """
    if 'max_epochs' not in cfg.train_cfg:
        raise ValueError(
            f'epochs: {epochs} expected max_epochs in train_cfg, got '
            f'{dict(cfg.train_cfg)}. Write epochs: null for this arm, and '
            'set its iterations with options.'
        )
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    last = last_scheduler(cfg)
    if last.get('by_epoch', True):
        last.update({k: epochs for k in ('end', 'T_max') if k in last})


def last_scheduler(cfg: Any) -> Any:
    """The config of the last scheduler, ``{}`` if there is none."""
    schedulers = cfg.get('param_scheduler') or [{}]
    return schedulers[-1] if isinstance(schedulers, list) else schedulers


def calibrate_only(cfg: Config) -> None:
    """Calibrate and evaluate in place of training.

    Args:
        cfg (Config): Is changed.
    """
    cfg.train_cfg = dict(type='CalibrationLoop', max_epochs=0)
    # An average of no steps: its copy would never see the calibrated ranges.
    cfg.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks', [])
        if type_name(hook) != 'EMAHook'
    ]


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """``Config.merge_from_dict`` that refuses what would change nothing.

    Args:
        cfg (Config): Is changed.
        options (dict): Dotted keys to values.

    Raises:
        ValueError: If a key is not one of the config or of mmengine's
            Runner, or the config does not take it.
    """
    for key in options:
        head, dot, _ = key.partition('.')
        if head not in cfg and (dot or head not in _RUNNER_KEYS):
            raise ValueError(
                f'option {key!r} would change nothing, since {cfg.filename} '
                f'has no {head!r}.'
            )
    try:
        cfg.merge_from_dict(deepcopy(options))
    except (KeyError, TypeError, AssertionError) as error:
        raise ValueError(
            f'{cfg.filename} does not take the options {sorted(options)}: '
            f'{error}'
        ) from error
