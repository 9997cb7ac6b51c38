"""Read configs and find parts of them, in whatever style they are written.

A ``type`` is a name, a name with a scope, or, in new-style configs, the class
itself. A data set may be inside wrappers, and there may be several.
"""

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import FunctionType
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from mmgor.registry import DATASETS, MODELS, TASK_UTILS, TRANSFORMS

# mmcv's, as a name and as a class.
_SYNC_BN = ('MMSyncBN', 'SyncBatchNorm')


def read_config(config: Any, owner: str = 'config') -> Any:
    """Read a config from wherever it is.

    Args:
        config (str | Path | dict): Path of a config file, a name such as
            'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', or a config dict.
        owner (str): What error messages call it.

    Returns:
        Config | dict: A dict is returned as it is.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If ``config`` is neither a path, a name nor a dict.
        RuntimeError: If the file cannot be read.
    """
    if isinstance(config, (str, os.PathLike)):
        return _read_file(str(config), owner)
    if not isinstance(config, (dict, Config)):
        raise ValueError(
            f'{owner} is {config!r}; expected a path, an '
            "'mmdet::...' name or a dict."
        )
    return config


def _read_file(path: str, owner: str) -> Config:
    if '::' not in path and not Path(path).is_file():
        raise FileNotFoundError(
            f'{owner} not found: {path}; expected a .py file, relative to '
            f"{Path.cwd()}, or a name such as 'mmdet::retinanet/"
            "retinanet_r101_fpn_1x_coco.py'."
        )
    try:
        return get_config(path) if '::' in path else Config.fromfile(path)
    except Exception as error:  # a config is a program and raises anything
        raise RuntimeError(
            f'{owner} could not be read: {path} '
            f'({type(error).__name__}: {error}).'
        ) from error


def type_name(part: dict[str, Any]) -> str:
    """Name of a config's ``type`` without its scope; '' if it has no type.

    Args:
        part (dict): Config of a module, data set or transform.
    """
    kind = part.get('type', '')
    # Settings of others may be called `type`, too, and be anything.
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def with_registered_names(value: Any, scope: str | None = None) -> Any:
    """A config in which classes and functions are replaced by their
    registered names, at any depth.

    Args:
        value (Any): Dicts, lists and tuples, nested, with any values.
        scope (str, optional): Scope that the names will be looked up in; a
            class of any other scope gets a prefix. Default: 'mmdet'.

    Raises:
        ValueError: If a class or function is in no registry.
    """
    if isinstance(value, dict):
        return type(value)(
            {k: with_registered_names(v, scope) for k, v in value.items()}
        )
    if isinstance(value, (list, tuple)):
        return type(value)(with_registered_names(v, scope) for v in value)
    if isinstance(value, (type, FunctionType)):
        return _registered_name(value, scope or MODELS.scope)
    return value


def _registered_name(kind: type | FunctionType, scope: str) -> str:
    for registry in (MODELS, TRANSFORMS, TASK_UTILS, DATASETS):
        root = registry.root
        nearest = root.children.get(scope, registry)
        for level in (nearest, root, *root.children.values()):
            known = level.module_dict
            names = [name for name, entry in known.items() if entry is kind]
            if names:
                name = kind.__name__ if kind.__name__ in names else names[0]
                plain = nearest.module_dict.get(name, kind) is kind
                found = plain and level in (nearest, root)
                return name if found else f'{level.scope}.{name}'
    raise ValueError(
        f'the config has {kind.__module__}.{kind.__qualname__}, '
        'which is in no registry; expected a registered one, '
        "such as mmdet's ResNet. Write @MODELS.register_module() above it "
        '(TRANSFORMS above a transform), or the name in its place, such as '
        "nms=dict(type='nms')."
    )


def model_config(cfg: Any, owner: str = 'the config') -> ConfigDict:
    """A copy of the config's model, ready to be built and to get its weights
    from a checkpoint.

    A ``data_preprocessor`` at the top level of the config belongs to a model
    that has none of its own, as in mmengine's Runner. ``init_cfg`` and
    ``pretrained`` of the model and of its backbone are left out: they name
    files to download. MMSyncBN, which can't be built outside of distributed
    training, becomes SyncBN, which has the same weights.

    Args:
        cfg (Config | dict): Has a ``model``, or is the model itself.
        owner (str): What error messages call it.

    Raises:
        ValueError: If there is no model with a ``type``.
    """
    found = cfg.get('model', cfg)
    if not isinstance(found, dict) or 'type' not in found:
        raise ValueError(
            f'{owner} has no model, only the keys {list(cfg)}; expected '
            'model=dict(type=...).'
        )
    model = ConfigDict(deepcopy(found))
    outer = cfg.get('data_preprocessor') if 'model' in cfg else None
    if outer is not None:
        model.setdefault('data_preprocessor', outer)
    for part in (model, model.get('backbone')):
        if isinstance(part, dict):
            for key in ('init_cfg', 'pretrained'):
                part.pop(key, None)
    _use_torch_sync_bn(model)
    return model


def _use_torch_sync_bn(value: Any) -> None:
    if isinstance(value, dict):
        kind = value.get('type')
        name = str(getattr(kind, '__name__', kind)).rpartition('.')[2]
        if name in _SYNC_BN:
            value['type'] = 'SyncBN'
        for inner in value.values():
            _use_torch_sync_bn(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _use_torch_sync_bn(inner)


def unwrapped_datasets(dataset: Any) -> Iterator[Any]:
    """The data sets inside the wrappers of a data set.

    Args:
        dataset (Any): Config of a dataloader's data set, a list of them, a
            built data set, or None. Wrappers hold others in ``dataset``
            (RepeatDataset, ClassBalancedDataset, MultiImageMixDataset) or
            ``datasets`` (ConcatDataset).

    Yields:
        Any: Each data set in its order: its config, or the data set itself
        if it was given built.
    """
    if isinstance(dataset, (list, tuple)):
        for one in dataset:
            yield from unwrapped_datasets(one)
        return
    inner = None
    if isinstance(dataset, dict):
        inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is not None and not isinstance(inner, str):
        yield from unwrapped_datasets(inner)
    elif dataset is not None and not _is_empty(dataset):
        yield dataset


def _is_empty(dataset: Any) -> bool:
    # Only dicts: a built data set without images is not empty here.
    return isinstance(dataset, dict) and not dataset


def loader_datasets(cfg: Any, loader: str) -> list[Any]:
    """The data sets of one of a config's dataloaders, without wrappers.

    Args:
        cfg (Config | dict): May lack the dataloader.
        loader (str): E.g. 'test_dataloader'.
    """
    return list(unwrapped_datasets((cfg.get(loader) or {}).get('dataset')))
