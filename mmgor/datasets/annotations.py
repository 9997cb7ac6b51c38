"""Read COCO annotation files, with clear errors if they can't be used."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

#: The keys that mmdet reads from every entry.
KEYS = dict(
    images=('id', 'file_name', 'width', 'height'),
    categories=('id', 'name'),
    annotations=('id', 'image_id', 'category_id'),
)


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a JSON file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'annotation file not found: {path}; expected a COCO JSON file. '
            'Check data_root and ann_file.'
        )
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not a JSON file: {error}.') from error


def read_annotations(path: Path, labelled: bool = True) -> dict[str, Any]:
    """Read a COCO annotation file that is not empty.

    Args:
        path (Path): The JSON file.
        labelled (bool): Whether it must have annotations.

    Returns:
        dict[str, Any]: Lists of ``images``, ``annotations`` and
        ``categories``. None is empty, except that annotations may be empty
        or missing if not ``labelled``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a JSON file, or a list is missing or empty.
    """
    content = read_json(path)
    keys = ['images', 'categories', *(['annotations'] if labelled else [])]
    for key in keys:
        part = content.get(key) if isinstance(content, dict) else None
        if not part or not isinstance(part, list):
            raise ValueError(
                f'{path} has no {key}; expected COCO format with at least '
                f'one entry each in {", ".join(keys)}. To train only on '
                'images without boxes: filter_cfg='
                'dict(filter_empty_gt=False).'
            )
    return content


def check_entries(path: Path, content: dict[str, Any]) -> None:
    """Make sure that all entries have the values that mmdet reads.

    Args:
        path (Path): The file, for error messages.
        content (dict): From :func:`read_annotations`.

    Raises:
        ValueError: If a value is missing or of another type, or two images
            or two annotations have the same id.
    """
    for part, keys in KEYS.items():
        for i, entry in enumerate(content.get(part) or []):
            where = f'{path}: {part}[{i}]'
            _check_keys(where, entry, keys)
            if part == 'images':
                _check_numbers(where, entry, ('width', 'height'))
            if part == 'annotations' and not entry.get('ignore'):
                _check_box(where, entry)
    ids = Counter(entry['id'] for entry in content.get('annotations') or [])
    twice = [key for key, count in ids.items() if count > 1]
    if twice:
        raise ValueError(
            f'{path}: {len(twice)} ids of annotations occur more than once, '
            f'e.g. {twice[0]!r}; expected a different id for each box, or '
            'mmdet refuses the file. Number them anew.'
        )
    files: dict[Any, str] = {}
    for image in content['images']:
        name = image['file_name']
        other = files.setdefault(image['id'], name)
        if other != name:
            raise ValueError(
                f'{path}: the images {other} and {name} both have the id '
                f'{image["id"]!r}; expected different ids, since mmdet '
                'keeps one image per id and gives it the boxes of both.'
            )


def _check_keys(where: str, entry: Any, keys: Sequence[str]) -> None:
    given = entry if isinstance(entry, dict) else {}
    # Lists and dicts are neither ids nor names.
    lacking = [
        key for key in keys if isinstance(given.get(key, []), (list, dict))
    ]
    if lacking:
        raise ValueError(
            f'{where} is {str(entry)[:200]}; expected a dict with the keys '
            f'{list(keys)}; {lacking} are missing or not plain values.'
        )


def _check_numbers(where: str, entry: dict, keys: Sequence[str]) -> None:
    for key in keys:
        value = entry[key]
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(
                f'{where} has {key}={value!r}; expected a finite number.'
            )


def _check_box(where: str, entry: dict) -> None:
    box = entry.get('bbox')
    numbers = box if isinstance(box, list) else []
    if len(numbers) != 4 or not all(isinstance(x, Real) for x in numbers):
        raise ValueError(
            f'{where} has bbox={box!r}; expected [x, y, width, height].'
        )
    if 'area' in entry:
        _check_numbers(where, entry, ['area'])
