"""Read COCO annotation files, or say clearly why they are of no use."""

import json
import os.path as osp
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_annotations(path: Path) -> dict[str, Any]:
    """Read a COCO annotation file that has something in it.

    Args:
        path (Path): The JSON file.

    Returns:
        dict[str, Any]: ``images``, ``annotations``, ``categories``, none of
        them empty.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no JSON file or a part is missing or empty.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'annotation file not found: {path}; expected a COCO JSON file. '
            'Check data_root and ann_file.'
        )
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is no JSON file: {error}.') from error
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content, dict) or not content.get(key):
            raise ValueError(
                f'{path} has no {key}; expected COCO format with at least '
                'one entry each in images, annotations and categories.'
            )
    return content


def check_training_data(dataloader: Any) -> None:
    """Check the annotation files of a train dataloader's CocoDatasets.

    mmdet fails on an empty one with "need at least one array to concatenate".
    Files behind a storage backend (``s3://``) are left to mmdet.

    Args:
        dataloader (dict, optional): ``cfg.train_dataloader``.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is of no use.
    """
    for dataset in _datasets((dataloader or {}).get('dataset')):
        name = dataset.get('ann_file')
        if dataset.get('type') != 'CocoDataset' or not name:
            continue
        path = osp.join(dataset.get('data_root') or '', name)
        if '://' not in path:
            read_annotations(Path(path))


def _datasets(cfg: Any) -> Iterator[Any]:
    """The innermost datasets of wrappers (Repeat, Concat, MultiImageMix)."""
    if not cfg:
        return
    inner = cfg.get('datasets') or [cfg.get('dataset')]
    if inner == [None]:
        yield cfg
    for dataset in inner:
        yield from _datasets(dataset)
