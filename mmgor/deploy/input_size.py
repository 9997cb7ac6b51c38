"""Read the input size of a network from its config."""

from collections.abc import Iterator, Sequence
from math import ceil, lcm
from typing import Any

from mmengine.config import Config

from mmgor.io.config_reader import loader_datasets, model_config, type_name

# Other sides are not halved evenly from level to level.
_DYNAMIC_DIVISOR = 32


def configured_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """The pipeline of the first test data set; empty if there is none.

    Args:
        cfg (Config): Complete config.

    Returns:
        list[dict]: Configs of the transforms.
    """
    for dataset in loader_datasets(cfg, 'test_dataloader'):
        if isinstance(dataset, dict):
            return list(dataset.get('pipeline') or [])
    return []


def size_divisor(cfg: Config, dynamic: bool = False) -> int:
    """The number that divides height and width of every padded batch.

    Args:
        cfg (Config): With ``pad_size_divisor`` in its ``data_preprocessor``.
        dynamic (bool): For a file of dynamic sizes: also a multiple of 32.

    Returns:
        int: In pixels.
    """
    preprocessing = model_config(cfg).get('data_preprocessor') or {}
    divisor = int(preprocessing.get('pad_size_divisor', 1))
    return lcm(divisor, _DYNAMIC_DIVISOR if dynamic else 1)


def padded_size(size: Sequence[int], divisor: int) -> tuple[int, int]:
    """Height and width, rounded up to multiples of ``divisor``."""
    height, width = (ceil(side / divisor) * divisor for side in size)
    return height, width


def configured_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels of the largest test images.

    Args:
        cfg (Config): Complete config; may have several test data sets.

    Raises:
        ValueError: If no test pipeline has a Resize with a scale, or a scale
            is wrong.
    """
    heights, widths = zip(*map(_resized_to, configured_resizes(cfg)))
    return max(heights), max(widths)


def configured_resizes(cfg: Config) -> list[dict[str, Any]]:
    """The transforms of all test pipelines that resize to a fixed size.

    Args:
        cfg (Config): Complete config; may have several test data sets.

    Returns:
        list[dict]: Configs of the transforms.

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
            'the size of the test images is not in the config: expected a '
            'Resize with a scale in the pipeline of test_dataloader. Type '
            'e.g. --size 640 640.'
        )
    return found


def _steps(pipeline: Any) -> Iterator[dict[str, Any]]:
    """All transforms, also those inside of RandomChoice or TestTimeAug."""
    if isinstance(pipeline, (list, tuple)):
        for step in pipeline:
            yield from _steps(step)
    elif isinstance(pipeline, dict):
        yield pipeline
        yield from _steps(pipeline.get('transforms'))


def _resizes(step: dict[str, Any]) -> bool:
    """Whether a step is Resize, FixScaleResize, FixShapeResize, mmyolo's
    LetterResize or the like."""
    name = type_name(step)
    fixed = name.endswith('Resize') and not name.startswith('Random')
    return fixed and bool(step.get('scale') or step.get('width'))


def _resized_to(step: dict[str, Any]) -> tuple[int, int]:
    """Height and width that a step resizes to."""
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
