"""A config and a checkpoint as a detector ready to be deployed."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict
from torch import nn

from mmgor.io.checkpoint import strip_training_keys
from mmgor.io.checkpoint_reader import read_state_dict
from mmgor.io.class_names import of_checkpoint, of_dataset
from mmgor.io.config_reader import loader_datasets, model_config, type_name
from mmgor.registry import MODELS


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
    model.dataset_meta = dict(classes=of_checkpoint(meta, str(checkpoint)))
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


def dataset_classes(cfg: Config) -> tuple[str, ...] | None:
    """Class names of the test data, None where the config has none.

    Raises:
        FileNotFoundError: If ``metainfo`` names a file that is not there.
        ValueError: If they are no names, or data sets differ in them.
    """
    data = loader_datasets(cfg, 'test_dataloader')
    return of_dataset(data, 'test_dataloader.dataset')


def test_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """The pipeline of the (first) test data set; empty where there is none."""
    for dataset in loader_datasets(cfg, 'test_dataloader'):
        if isinstance(dataset, dict):
            return list(dataset.get('pipeline') or [])
    return []


def padded_size(size: Sequence[int], divisor: int) -> tuple[int, int]:
    """Height and width, rounded up to multiples of ``divisor``."""
    height, width = (ceil(side / divisor) * divisor for side in size)
    return height, width


def test_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels that hold all that the test pipelines
    resize to.

    Raises:
        ValueError: If they do not say.
    """
    heights, widths = zip(*map(_resized_to, test_resizes(cfg)))
    return max(heights), max(widths)


def test_resizes(cfg: Config) -> list[dict[str, Any]]:
    """Every step of the test pipelines that resizes to a size.

    Raises:
        ValueError: If there is none.
    """
    found = [
        step
        for dataset in loader_datasets(cfg, 'test_dataloader')
        if isinstance(dataset, dict)
        for step in _steps(dataset.get('pipeline'))
        if _resizes(step)
    ]
    if not found:
        raise ValueError(
            'the size of the test pictures is not in the config: expected a '
            'Resize with a scale in the pipeline of test_dataloader. Type '
            'e.g. --size 640 640.'
        )
    return found


def _steps(pipeline: Any) -> Iterator[dict[str, Any]]:
    """Transforms, and those inside of them (RandomChoice, TestTimeAug)."""
    if isinstance(pipeline, (list, tuple)):
        for step in pipeline:
            yield from _steps(step)
    elif isinstance(pipeline, dict):
        yield pipeline
        yield from _steps(pipeline.get('transforms'))


def _resizes(step: dict[str, Any]) -> bool:
    """Resize, FixScaleResize, FixShapeResize, mmyolo's LetterResize ..."""
    name = type_name(step)
    fixed = name.endswith('Resize') and not name.startswith('Random')
    return fixed and bool(step.get('scale') or step.get('width'))


def _resized_to(step: dict[str, Any]) -> tuple[int, int]:
    """Height and width."""
    scale: Any = step.get('scale') or (step['width'], step.get('height'))
    pair = isinstance(scale, (list, tuple))
    sides = list(scale) if pair else [scale, scale]
    if len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides):
        raise ValueError(
            f'the {type_name(step)} of the test pipeline has scale={scale!r};'
            ' expected (width, height) in pixels, or one number for both. '
            'Correct it, or type e.g. --size 640 640.'
        )
    width, height = sides
    return height, width
