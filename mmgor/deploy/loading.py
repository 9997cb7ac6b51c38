"""A config and a checkpoint as a detector ready to be deployed."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict
from torch import nn

from mmgor.checkpoint import strip_training_keys
from mmgor.checkpoint_files import read_state_dict
from mmgor.registry import DATASETS, MODELS


def load_detector(cfg: Config, checkpoint: str | Path | None) -> nn.Module:
    """The config's detector in evaluation mode, without its teachers.

    Args:
        cfg (Config): With ``model``; its scope becomes the default one.
        checkpoint (str | Path, optional): File or URL. The file's class
            names, if any, become the model's ``dataset_meta``.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it can't be read.
        RuntimeError: If it does not have all weights of the model, and no
            others.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model: Any = MODELS.build(model_config(cfg)).eval()
    model.dataset_meta = {}
    if checkpoint is None:
        return model
    state_dict, meta = read_state_dict(checkpoint)
    # Strict, other than the Runner: a part of the weights left at their
    # initial values would be written to the device without a word.
    load_state_dict(model, strip_training_keys(state_dict), strict=True)
    model.dataset_meta = _dataset_meta(checkpoint, meta)
    return model


def _dataset_meta(checkpoint: str | Path, meta: Any) -> dict[str, Any]:
    found = meta.get('dataset_meta') or {} if isinstance(meta, dict) else meta
    if not isinstance(found, dict):
        raise ValueError(
            f'{checkpoint} has the meta {str(meta)[:100]}; expected dict('
            'dataset_meta=dict(classes=[...])), as tools/train.py writes it, '
            'or none.'
        )
    return found


def model_config(cfg: Config) -> ConfigDict:
    """The config's model with its ``data_preprocessor``.

    One at the config's top level is that of a model without its own, as in
    mmengine's Runner.
    """
    model = cfg.model.copy()
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return model


def class_names(cfg: Config, model: Any) -> tuple[str, ...]:
    """Names of the labels, in order.

    From the checkpoint if it has them, else from the test data set of the
    config.

    Args:
        cfg (Config): Complete config.
        model (nn.Module): From :func:`load_detector`.

    Raises:
        ValueError: If they are as many as the head's classes nowhere.
        FileNotFoundError: If the config names a file that is not there.
    """
    found = model.dataset_meta.get('classes') or dataset_classes(cfg)
    count = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
    if not found or (count is not None and len(found) != count):
        names = list(found) if found else 'none'
        raise ValueError(
            f'expected the names of {count} classes in the checkpoint or in '
            f'test_dataloader.dataset.metainfo, got {names}. Add metainfo='
            "dict(classes=('...',)) to the data set in the config."
        )
    return tuple(found)


def dataset_classes(cfg: Config) -> Any:
    """Class names of the test data set, None where the config has none.

    Raises:
        FileNotFoundError: If ``metainfo`` names a file that is not there.
    """
    dataset = test_dataset(cfg)
    if 'type' not in dataset:
        return None
    known = getattr(DATASETS.get(dataset['type']), 'METAINFO', {})
    found = {**known, **(dataset.get('metainfo') or {})}.get('classes')
    if not isinstance(found, str):
        return found
    # mmengine's data sets read such a file, too.
    if not Path(found).is_file():
        raise FileNotFoundError(
            f'class names not found: {found}; expected metainfo.classes of '
            'the test data set to be a list of names or a file with a name a '
            f'line, relative to {Path.cwd()}.'
        )
    return list_from_file(found)


def test_dataset(cfg: Config) -> dict[str, Any]:
    """The config's test data set, out of its wrappers; or an empty dict."""
    return innermost((cfg.get('test_dataloader') or {}).get('dataset') or {})


def innermost(dataset: dict[str, Any]) -> dict[str, Any]:
    """The config of a data set, out of its wrappers."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def transform_name(step: dict[str, Any]) -> str:
    """Name of a pipeline's step, without the scope of 'mmdet.Resize'."""
    kind = step['type']
    name = kind if isinstance(kind, str) else kind.__name__
    return name.rpartition('.')[2]


def padded_size(size: Sequence[int], divisor: int) -> tuple[int, int]:
    """Height and width, rounded up to multiples of ``divisor``."""
    height, width = (ceil(side / divisor) * divisor for side in size)
    return height, width


def test_size(cfg: Config) -> tuple[int, int]:
    """Height and width that the test pipeline resizes to, in pixels.

    Raises:
        ValueError: If it does not say.
    """
    scale = test_resize(cfg)['scale']
    width, height = (scale, scale) if isinstance(scale, int) else scale
    return height, width


def test_resize(cfg: Config) -> dict[str, Any]:
    """The Resize of the test pipeline.

    Raises:
        ValueError: If there is none with a scale.
    """
    for step in test_dataset(cfg).get('pipeline') or ():
        if transform_name(step) == 'Resize' and step.get('scale'):
            return step
    raise ValueError(
        'the size of the test pictures is not in the config: expected a '
        'Resize with a scale in the pipeline of test_dataloader. Type e.g. '
        '--size 640 640.'
    )
