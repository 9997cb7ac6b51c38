"""A folder in COCO format, read and checked before anything trains."""

from dataclasses import dataclass
from pathlib import Path

from .annotations import read_annotations
from .image_files import READ, look_at, spread


@dataclass(frozen=True)
class DataFolder:
    """``train.json``, ``eval.json`` and ``images/`` in one folder.

    Args:
        root (Path): The folder.
        classes (tuple[str, ...]): Category names in the files' order, which
            is how mmdet numbers labels.
        side (int): The longest side of any training image, in pixels.
    """

    root: Path
    classes: tuple[str, ...]
    side: int


def read_data_folder(root: Path) -> DataFolder:
    """Read and check a data folder.

    Raises:
        FileNotFoundError: If a part or a listed image is missing.
        ValueError: If an annotation file is not usable, or names a file
            outside of images/, or if one of up to 2,000 images that are
            looked at is cut off.
    """
    files = [root / 'train.json', root / 'eval.json']
    for part in (*files, root / 'images'):
        if not part.exists():
            raise FileNotFoundError(
                f'{part} not found; expected a folder with train.json and '
                'eval.json (COCO format) and images/.'
            )
    train, held_out = (read_annotations(file) for file in files)
    for file, content in zip(files, (train, held_out)):
        _check_keys(file, content)
    classes, others = (
        tuple(category['name'] for category in content['categories'])
        for content in (train, held_out)
    )
    if classes != others:
        raise ValueError(
            f'train.json has classes {classes}, eval.json {others}; expected '
            'the same categories in the same order. Copy "categories" of one '
            'file into the other.'
        )
    images = [*train['images'], *held_out['images']]
    for image in images:
        if not (root / 'images' / image['file_name']).is_file():
            raise FileNotFoundError(
                f'{root / "images" / image["file_name"]} not found; expected '
                'every file_name relative to images/.'
            )
    for image in spread(images, READ):
        path = root / 'images' / image['file_name']
        fault = look_at(path).fault
        if fault:
            raise ValueError(
                f'{path} {fault}; expected an image. Copy it again, or '
                'remove it from its annotation file.'
            )
    sides = [
        image.get(key, 0) for image in images for key in ('width', 'height')
    ]
    if not all(sides):
        raise ValueError(
            f'{root}: expected "width" and "height" of every image in '
            'train.json and eval.json.'
        )
    return DataFolder(root, classes, max(sides[: 2 * len(train['images'])]))


def _check_keys(file: Path, content: dict) -> None:
    for part, key in (('categories', 'name'), ('images', 'file_name')):
        for entry in content[part]:
            if not isinstance(entry, dict) or key not in entry:
                raise ValueError(
                    f'{file}: expected {key!r} in every entry of {part!r}, '
                    f'got {entry!r}.'
                )
            _check_name(file, part, key, entry[key])


def _check_name(file: Path, part: str, key: str, name: object) -> None:
    """Names go into configs and paths, and the file may be anybody's."""
    owner = f'{file}: {key!r} in {part!r}'
    if not isinstance(name, str):
        raise ValueError(f'{owner} is {name!r}; expected text.')
    if '{{' in name:
        raise ValueError(
            f'{owner} is {name!r}; expected a name without "{{{{", which '
            'mmengine replaces in a config, also by environment variables.'
        )
    if part == 'images':
        path = Path(name)
        if path.is_absolute() or '..' in path.parts:
            raise ValueError(
                f'{owner} is {name!r}, outside of images/; expected a path '
                'relative to images/ and inside of it.'
            )
