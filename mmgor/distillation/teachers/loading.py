"""Read a teacher's config, weights and class list."""

import logging
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.logging import print_log
from torch import nn

from mmgor.io import config_reader as config_reading
from mmgor.io.checkpoint import check_sound, strip_training_keys
from mmgor.io.checkpoint_reader import read_state_dict
from mmgor.io.class_names import of_checkpoint, of_dataset
from mmgor.io.config_reader import loader_datasets

# Where a config's classes are looked for, in this order.
_LOADERS = ('val_dataloader', 'test_dataloader', 'train_dataloader')


def read_config(name: str, config: Any) -> Any:
    """A teacher's config as a dict.

    Args:
        name (str): The teacher's, for messages.
        config (str | dict): Path of a config, an 'mmdet::...' name, a config
            dict with ``model``, or a model dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither a file nor a dict.
        RuntimeError: If it cannot be read.
    """
    if isinstance(config, (str, os.PathLike)):
        return _read_config_file(name, str(config))
    if not isinstance(config, (dict, Config)):
        raise ValueError(
            f'config of teacher {name!r} is {config!r}; expected a '
            "path, an 'mmdet::...' name or a dict."
        )
    return config


def _read_config_file(name: str, path: str) -> Config:
    if '::' not in path and not Path(path).is_file():
        raise FileNotFoundError(
            f'config of teacher {name!r} not found: {path}. Expected '
            "an existing .py file or a name such as 'mmdet::retinanet/"
            "retinanet_r101_fpn_1x_coco.py'."
        )
    try:
        return get_config(path) if '::' in path else Config.fromfile(path)
    except Exception as error:
        raise RuntimeError(
            f'config of teacher {name!r} could not be read: {path} '
            f'({type(error).__name__}: {error}).'
        ) from error


def model_config(name: str, config: Any) -> ConfigDict:
    """The model of a config, without weights to download.

    Args:
        name (str): The teacher's, for messages.
        config (dict): From :func:`read_config`.

    Raises:
        ValueError: If it has no model.
    """
    model = config.get('model', config)
    if not isinstance(model, dict) or 'type' not in model:
        raise ValueError(
            f'config of teacher {name!r} has no model, only the keys '
            f'{list(config)}; expected model=dict(type=...).'
        )
    whole = config if 'model' in config else dict(model=config)
    model = config_reading.model_config(whole)
    # The checkpoint has every weight; no backbone download needed.
    model.init_cfg = None
    if isinstance(model.get('backbone'), dict):
        model.backbone.init_cfg = None
    return model


def read_checkpoint(name: str, path: str) -> tuple[dict, Any]:
    """Weights and meta of a checkpoint, {} where it has none.

    Args:
        name (str): The teacher's, for messages.
        path (str): Path or URL.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it cannot be read.
    """
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(
            f'checkpoint of teacher {name!r} not found: {path}. '
            'Train the teacher first, or give a path or URL of its '
            'weights.'
        )
    try:
        state_dict, meta = read_state_dict(path)
    except ValueError as error:
        raise RuntimeError(
            f'checkpoint of teacher {name!r} could not be read: {error}'
        ) from error
    state_dict = {
        key.removeprefix('module.'): value for key, value in state_dict.items()
    }
    return state_dict, meta


def load_weights(
    name: str, path: str, model: nn.Module, state_dict: dict
) -> None:
    """Load a teacher's weights; every key of the model must be there, and
    none more of its parts. Of a student, KD heads and weighting are left out.

    Raises:
        RuntimeError: If shapes differ or keys are missing, or a part of the
            model (backbone, neck, head ...) has more of them in the file.
        ValueError: If a weight is NaN or infinite, or a quantizer has no
            range or an absurd one.
    """
    state_dict = strip_training_keys(state_dict)
    what = f'checkpoint of teacher {name!r} ({path})'
    check_sound(model.state_dict(), state_dict, what)
    try:
        result = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        raise RuntimeError(
            f'checkpoint of teacher {name!r} ({path}) '
            f'does not fit its config: {error}'
        ) from error
    missing = [
        key
        for key in result.missing_keys
        if not key.endswith('num_batches_tracked')
    ]
    if missing:
        raise RuntimeError(
            f'checkpoint of teacher {name!r} ({path}) '
            f'lacks {len(missing)} keys of its config, e.g. '
            f'{missing[:5]}; expected the checkpoint that this config '
            'was trained with.'
        )
    unused = result.unexpected_keys
    parts = {key.split('.')[0] for key, _ in model.named_parameters()}
    deeper = [key for key in unused if key.split('.')[0] in parts]
    if deeper:
        raise RuntimeError(
            f'checkpoint of teacher {name!r} ({path}) '
            f'has {len(deeper)} keys that its config lacks, e.g. '
            f'{deeper[:5]}; expected the checkpoint that this config was '
            'trained with (the same depth, heads and quantization).'
        )
    if unused:
        print_log(
            f'teacher {name!r}: {len(unused)} keys of the checkpoint are '
            f'unused, e.g. {unused[:3]}.',
            logger='current',
            level=logging.WARNING,
        )
    _check_calibrated(name, path, model)


def _check_calibrated(name: str, path: str, model: nn.Module) -> None:
    """A range in every quantizer."""
    # Quantizers tell it by this attribute: distillation does not know them.
    blank = [
        key.rpartition('.')[0]
        for key, module in model.named_modules()
        if getattr(module, 'calibrated', True) is False
    ]
    layers = list(dict.fromkeys(blank))
    if layers:
        raise ValueError(
            f'checkpoint of teacher {name!r} ({path}) has no ranges for '
            f'{len(layers)} quantized layers, e.g. {layers[:3]}; expected the '
            'checkpoint of a quantized training of its config. Give that '
            'one, or the float config of this checkpoint.'
        )


def find_classes(name: str, meta: Any, config: Any) -> tuple[str, ...] | None:
    """Class names that a checkpoint's meta tells, else those of the dataset
    that the config evaluates on; None where neither tells any.

    Args:
        name (str): The teacher's, for messages.
        meta (dict): Of the checkpoint.
        config (dict): From :func:`read_config`.

    Raises:
        FileNotFoundError: If the config names a file that can't be read.
        ValueError: If ``meta`` is no such dict, the names are no names, or
            data sets differ in them.
    """
    owner = f'checkpoint or config of teacher {name!r}'
    try:
        found = of_checkpoint(meta, owner)
        for loader in _LOADERS:
            found = found or of_dataset(loader_datasets(config, loader), owner)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f'{error} Set it there, or teachers=dict({name}=dict(classes='
            '[...], ...)).'
        ) from error
    return found
