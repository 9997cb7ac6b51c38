"""A folder in COCO format, read and checked before anything trains."""

from dataclasses import dataclass
from pathlib import Path

from mmgor.datasets import read_annotations


@dataclass(frozen=True)
class DataFolder:
    """``train.json``, ``eval.json`` and ``images/`` in one folder.

    Args:
        root (Path): The folder.
        classes (tuple[str, ...]): Category names in the order of their ids.
        side (int): Longest side of any picture, in pixels.
    """

    root: Path
    classes: tuple[str, ...]
    side: int


def read_data_folder(root: Path) -> DataFolder:
    """Read and check a data folder.

    Args:
        root (Path): The folder.

    Raises:
        FileNotFoundError: If a part is missing.
        ValueError: If an annotation file is not usable.
    """
    for part in ('train.json', 'eval.json', 'images'):
        if not (root / part).exists():
            raise FileNotFoundError(
                f'{root / part} not found; expected a folder with train.json '
                'and eval.json (COCO format) and images/.'
            )
    train, held_out = (
        read_annotations(root / f'{split}.json') for split in ('train', 'eval')
    )
    classes = _classes(train)
    if classes != _classes(held_out):
        raise ValueError(
            f'train.json has classes {classes}, eval.json '
            f'{_classes(held_out)}; expected the same categories in both.'
        )
    side = max(
        max(image['width'], image['height']) for image in train['images']
    )
    return DataFolder(root, classes, side)


def _classes(content: dict) -> tuple[str, ...]:
    categories = sorted(content['categories'], key=lambda c: c['id'])
    return tuple(category['name'] for category in categories)
