"""A config and a checkpoint as a detector ready to be deployed."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from mmgor.checkpoint import check_any_match
from mmgor.registry import DATASETS, MODELS


def load_detector(cfg: Config, checkpoint: str | Path | None) -> nn.Module:
    """The config's detector in evaluation mode, without its teachers.

    Args:
        cfg (Config): With ``model``; its scope becomes the default one.
        checkpoint (str | Path, optional): File or URL. The file's class
            names, if any, become the model's ``dataset_meta``.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        RuntimeError: If it matches nothing of the model.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model: Any = MODELS.build(cfg.model).eval()
    model.dataset_meta = {}
    if checkpoint is None:
        return model
    if '://' not in str(checkpoint) and not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f'checkpoint not found: {checkpoint}; expected a .pth file of '
            f'this config, relative to {Path.cwd()}.'
        )
    # Wrapped parts look for themselves; a float model does not.
    model.register_load_state_dict_pre_hook(
        lambda module, state_dict, prefix, *_: check_any_match(
            module, state_dict, prefix, 'model'
        )
    )
    loaded = load_checkpoint(model, str(checkpoint), map_location='cpu')
    meta = loaded.get('meta') or {}
    model.dataset_meta = meta.get('dataset_meta') or {}
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
    """
    dataset = test_dataset(cfg)
    kind = DATASETS.get(dataset.get('type', ''))
    sources = (
        model.dataset_meta,
        dataset.get('metainfo') or {},
        getattr(kind, 'METAINFO', {}),
    )
    found = [s['classes'] for s in sources if s.get('classes')]
    count = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
    if not found or (count is not None and len(found[0]) != count):
        names = list(found[0]) if found else 'none'
        raise ValueError(
            f'expected the names of {count} classes in the checkpoint or in '
            f'test_dataloader.dataset.metainfo, got {names}. Add metainfo='
            "dict(classes=('...',)) to the data set in the config."
        )
    return tuple(found[0])


def test_dataset(cfg: Config) -> dict[str, Any]:
    """The config's test data set, out of its wrappers; or an empty dict."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
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
