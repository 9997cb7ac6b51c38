"""``runtime_model``: the model config that evaluates an exported file."""

from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmgor.deploy.description.config_json import without
from mmgor.deploy.description.metadata_check import errors_naming
from mmgor.deploy.description.metadata_reader import (
    exported_config,
    read_metadata,
)
from mmgor.io.class_names import loader_classes
from mmgor.io.config_reader import model_config, with_registered_names

from .runtime_detector import RuntimeDetector

_NOT_DECODING = ('quant', 'train_cfg', 'test_cfg', 'init_cfg')


def runtime_model(cfg: Config, path: str | Path) -> ConfigDict:
    """The model config that evaluates an exported file instead of the config's
    own model.

    Args:
        cfg (Config): A complete config with a single-stage model, wrapped by
            mmgor or mmdet's own. Its head is the file's.
        path (str | Path): The exported file.

    Returns:
        ConfigDict: Config of a :class:`.RuntimeDetector`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file can't be read, or the config has another head,
            preprocessing or classes than the file; for a file with NMS in
            its graph also if it has another ``test_cfg``.
    """
    metadata = read_metadata(path)
    model = runtime_detector_cfg(cfg, path)
    with errors_naming(path):
        wanted = runtime_detector_cfg(exported_config(metadata), path)
    keys = ['bbox_head', 'data_preprocessor']
    if metadata['nms']:
        keys.append('test_cfg')
    wrong = []
    for key in keys:
        wrong += differences(model[key], wanted[key], key)
    classes = loader_classes(cfg, 'test_dataloader')
    if classes is not None:
        wrong += differences(classes, metadata['classes'], 'classes')
    if wrong:
        raise ValueError(
            f'the config does not fit {path}: {"; ".join(wrong)}. Give the '
            'config that the file was exported with.'
        )
    return model


def runtime_detector_cfg(cfg: Config, path: str | Path) -> ConfigDict:
    """The config of :func:`runtime_model`, not compared with the file.

    Args:
        cfg (Config): See :func:`runtime_model`.
        path (str | Path): The exported file; it is not read.

    Returns:
        ConfigDict: Config of a :class:`.RuntimeDetector`.

    Raises:
        ValueError: If the model is not a single-stage detector.
    """
    # New-style configs have no scope, but names are looked up in one.
    scope = cfg.get('default_scope') or 'mmdet'
    model = with_registered_names(model_config(cfg), scope)
    if 'bbox_head' not in model:
        raise ValueError(
            'expected a single-stage model with a bbox_head in the config, '
            f'got {model.type} with {sorted(model)}.'
        )
    head = without(model.bbox_head, _NOT_DECODING)
    if head['type'] == 'QuantHead':
        head['type'] = head.pop('head')
    return ConfigDict(
        type=RuntimeDetector.__name__,
        _scope_=scope,
        file=str(path),
        bbox_head=head,
        data_preprocessor=model.get('data_preprocessor'),
        test_cfg=model.get('test_cfg'),
    )


def differences(ours: Any, theirs: Any, name: str) -> list[str]:
    """Describe where two nested configs differ.

    Args:
        ours (Any): Value in the config.
        theirs (Any): Value in the file.
        name (str): Name of the value.

    Returns:
        list[str]: One line per entry that differs.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return [
            line
            for key in keys
            for line in differences(
                ours.get(key), theirs.get(key), f'{name}.{key}'
            )
        ]
    if _lists(ours) == _lists(theirs):
        return []
    return [f'{name} is {ours!r} in the config and {theirs!r} in the file']


def _lists(value: Any) -> Any:
    """Tuples as lists, which is what JSON makes of them."""
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
