"""A folder in COCO format, read and checked before anything trains."""

from dataclasses import dataclass
from pathlib import Path

from mmgor.datasets import read_annotations

# The demo's configs are made for small pictures; larger ones are shrunk.
MAX_SIDE = 320


@dataclass(frozen=True)
class DataFolder:
    """``train.json``, ``eval.json`` and ``images/`` in one folder.

    Args:
        root (Path): The folder.
        classes (tuple[str, ...]): Category names in the files' order, which
            is how mmdet numbers labels.
        side (int): What pictures are resized to fit in: the longest side of
            any training picture, at most ``MAX_SIDE``, in pixels.
    """

    root: Path
    classes: tuple[str, ...]
    side: int


def read_data_folder(root: Path) -> DataFolder:
    """Read and check a data folder.

    Args:
        root (Path): The folder.

    Raises:
        FileNotFoundError: If a part or a listed picture is missing.
        ValueError: If an annotation file is not usable.
    """
    for part in ('train.json', 'eval.json', 'images'):
        if not (root / part).exists():
            raise FileNotFoundError(
                f'{root / part} not found; expected a folder with train.json '
                'and eval.json (COCO format) and images/. Name it with '
                '--data FOLDER.'
            )
    train, held_out = (
        read_annotations(root / f'{split}.json') for split in ('train', 'eval')
    )
    classes = _classes(train)
    if classes != _classes(held_out):
        raise ValueError(
            f'train.json has classes {classes}, eval.json '
            f'{_classes(held_out)}; expected the same categories in the same '
            'order. Copy "categories" of one file into the other.'
        )
    for content in (train, held_out):
        _check_pictures(root / 'images', content['images'])
    side = max(
        max(image.get('width', 0), image.get('height', 0))
        for image in train['images']
    )
    if not side:
        raise ValueError(
            f'{root / "train.json"} gives no sizes; expected "width" and '
            '"height" in every entry of "images".'
        )
    return DataFolder(root, classes, min(side, MAX_SIDE))


def _check_pictures(folder: Path, images: list[dict]) -> None:
    missing = [
        image['file_name']
        for image in images
        if not (folder / image['file_name']).is_file()
    ]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(images)} listed pictures not found, '
            f'{folder / missing[0]} for one; expected every file_name '
            'relative to images/.'
        )


def _classes(content: dict) -> tuple[str, ...]:
    return tuple(category['name'] for category in content['categories'])
