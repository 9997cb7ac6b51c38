"""A config and a checkpoint as a detector ready to be deployed."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmgor.checkpoint import strip_training_keys
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
    model: Any = MODELS.build(cfg.model).eval()
    model.dataset_meta = {}
    if checkpoint is None:
        return model
    state_dict, meta = _read_checkpoint(str(checkpoint))
    # Strict, other than the Runner: a part of the weights left at their
    # initial values would be written to the device without a word.
    load_state_dict(model, strip_training_keys(state_dict), strict=True)
    model.dataset_meta = meta.get('dataset_meta') or {}
    return model


def _read_checkpoint(path: str) -> tuple[dict, dict]:
    """State dict and meta."""
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(
            f'checkpoint not found: {path}; expected a .pth file of this '
            f'config, relative to {Path.cwd()}.'
        )
    try:
        loaded = CheckpointLoader.load_checkpoint(path, 'cpu')
    except Exception as error:  # the unpickler raises whatever it meets
        raise ValueError(
            f'{path} could not be read ({type(error).__name__}: {error}); '
            'expected a checkpoint that tools/train.py wrote.'
        ) from error
    state_dict = loaded.get('state_dict', loaded)
    return state_dict, loaded.get('meta') or {}


def class_names(cfg: Config, model: Any) -> tuple[str, ...]:
    """Names of the labels, in order.

    From the checkpoint if it has them, else from the test data set of the
    config.

    Args:
        cfg (Config): Complete config.
        model (nn.Module): From :func:`load_detector`.

    Raises:
        ValueError: If they are as many as the head's classes nowhere.
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
    """Class names of the test data set, None where the config has none."""
    dataset = test_dataset(cfg)
    if 'type' not in dataset:
        return None
    known = getattr(DATASETS.get(dataset['type']), 'METAINFO', {})
    return {**known, **(dataset.get('metainfo') or {})}.get('classes')


def test_dataset(cfg: Config) -> dict[str, Any]:
    """The config's test data set, out of its wrappers; or an empty dict."""
    return innermost((cfg.get('test_dataloader') or {}).get('dataset') or {})


def innermost(dataset: dict[str, Any]) -> dict[str, Any]:
    """The config of a data set, out of its wrappers."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def test_size(cfg: Config) -> tuple[int, int]:
    """Height and width that the test pipeline resizes to, in pixels.

    Raises:
        ValueError: If it does not say.
    """
    for step in test_dataset(cfg).get('pipeline') or ():
        if step['type'] == 'Resize' and 'scale' in step:
            width, height = step['scale']
            return height, width
    raise ValueError(
        'the size of the test pictures is not in the config: expected a '
        'Resize with a scale in the pipeline of test_dataloader. Type e.g. '
        '--size 640 640.'
    )
