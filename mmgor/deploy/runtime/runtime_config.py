"""``runtime_model``: the model config that evaluates an exported file."""

from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmgor.deploy.description.config_json import without
from mmgor.deploy.description.metadata import LEFT_OUT
from mmgor.deploy.description.metadata_check import errors_naming
from mmgor.deploy.description.metadata_reader import (
    exported_config,
    read_metadata,
)
from mmgor.io.class_names import loader_classes
from mmgor.io.config_reader import model_config, with_registered_names
from mmgor.listing import listed

from .runtime import BACKENDS
from .runtime_detector import RuntimeDetector
from .split_detector import SplitDetector

_NOT_DECODING = ('quant', 'train_cfg', 'test_cfg', 'init_cfg')
# Of a part of a detector: what only PyTorch reads, and what a DETR writes into
# its config when it is built.
_NOT_WRITTEN = (
    *LEFT_OUT,
    *('test_cfg', 'gradient_tap', 'dn_cfg'),
    *('share_pred_layer', 'num_pred_layer', 'as_two_stage'),
)


def runtime_model(
    cfg: Config, path: str | Path, rest: str | Path | None = None
) -> ConfigDict:
    """The model config that evaluates an exported file instead of the config's
    own model.

    Args:
        cfg (Config): A complete config with the file's model, wrapped by
            mmgor or, for a single-stage detector, mmdet's own.
        path (str | Path): The exported file.
        rest (str | Path, optional): Checkpoint that the file was exported
            from, if it has only a part of the detector (see
            :mod:`mmgor.deploy.parts`).

    Returns:
        ConfigDict: Config of a :class:`.RuntimeDetector`, or of a
        :class:`.SplitDetector` with ``rest``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file can't be read, or the config has another head,
            preprocessing or classes than the file; for a file with NMS in
            its graph also if it has another ``test_cfg``, and for a part of a
            detector if anything of the model but that differs; if ``rest`` is
            missing or an exported file, or the file has all parts.
    """
    metadata = read_metadata(path)
    if bool(metadata['rest']) != (rest is not None):
        raise ValueError(_wrong_rest(metadata['rest'], path, rest))
    if rest is not None and Path(rest).suffix in BACKENDS:
        raise ValueError(
            f'--rest expected the checkpoint that {path} was exported from, '
            f'got the exported file {rest}.'
        )
    if rest is None:
        model, wrong = _whole(cfg, metadata, path)
    else:
        model, wrong = _split(cfg, metadata, path, rest)
    classes = loader_classes(cfg, 'test_dataloader')
    if classes is not None:
        wrong += differences(classes, metadata['classes'], 'classes')
    if wrong:
        raise ValueError(
            f'the config does not fit {path}: {listed(wrong, "; ")}. Give '
            'the config that the file was exported with.'
        )
    return model


def _wrong_rest(names: list, path: str | Path, rest: str | Path | None) -> str:
    if rest is None:
        return (
            f'{path} has only a part of its detector; PyTorch has to run '
            f'{listed(names)}. Type --rest CHECKPOINT (rest=CHECKPOINT), the '
            'checkpoint that it was exported from.'
        )
    return (
        f'{path} has all parts of its detector; expected no checkpoint of '
        f'others, got {rest}. Leave out --rest (rest=None).'
    )


def _whole(
    cfg: Config, metadata: dict[str, Any], path: str | Path
) -> tuple[ConfigDict, list[str]]:
    """The model config for a whole detector, and how it differs from the
    file's."""
    model = runtime_detector_cfg(cfg, path)
    with errors_naming(path):
        wanted = runtime_detector_cfg(exported_config(metadata), path)
    keys = ['bbox_head', 'data_preprocessor']
    if metadata['nms']:
        keys.append('test_cfg')
    wrong = []
    for key in keys:
        wrong += differences(model[key], wanted[key], key)
    return model, wrong


def _split(
    cfg: Config, metadata: dict[str, Any], path: str | Path, rest: str | Path
) -> tuple[ConfigDict, list[str]]:
    """The model config for a part of a detector, and how it differs from the
    file's."""
    model, scope = _registered_model(cfg)
    with errors_naming(path):
        wanted = exported_config(metadata).model
    wrong = differences(_comparable(model), _comparable(wanted), 'model')
    split = ConfigDict(
        type=SplitDetector.__name__,
        _scope_=scope,
        file=str(path),
        detector=model,
        checkpoint=str(rest),
    )
    return split, wrong


def _comparable(model: ConfigDict) -> dict[str, Any]:
    """What a file and a config have to agree on; a detector is the same with
    and without teachers."""
    kept: dict[str, Any] = without(model, _NOT_WRITTEN)
    kept['type'] = kept.pop('detector', kept['type'])
    return kept


def _registered_model(cfg: Config) -> tuple[ConfigDict, str]:
    """The model of a config with names for types, and their scope."""
    # New-style configs have no scope, but names are looked up in one.
    scope = cfg.get('default_scope') or 'mmdet'
    return with_registered_names(model_config(cfg), scope), scope


def runtime_detector_cfg(cfg: Config, path: str | Path) -> ConfigDict:
    """The config for a whole detector, not compared with the file.

    Args:
        cfg (Config): See :func:`runtime_model`.
        path (str | Path): The exported file; it is not read.

    Returns:
        ConfigDict: Config of a :class:`.RuntimeDetector`.

    Raises:
        ValueError: If the model is not a single-stage detector.
    """
    model, scope = _registered_model(cfg)
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
    if _of_dicts(ours) and _of_dicts(theirs) and len(ours) == len(theirs):
        return [
            line
            for i, (one, other) in enumerate(zip(ours, theirs))
            for line in differences(one, other, f'{name}.{i}')
        ]
    return [f'{name} is {ours!r} in the config and {theirs!r} in the file']


def _of_dicts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(
        isinstance(item, dict) for item in value
    )


def _lists(value: Any) -> Any:
    """Tuples as lists, which is what JSON makes of them."""
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
