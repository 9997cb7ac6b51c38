"""Read COCO annotation files, or say clearly why they are of no use."""

import json
import os.path as osp
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_annotations(path: Path, labelled: bool = True) -> dict[str, Any]:
    """Read a COCO annotation file that has something in it.

    Args:
        path (Path): The JSON file.
        labelled (bool): Whether it must have annotations.

    Returns:
        dict[str, Any]: ``images``, ``annotations``, ``categories``, none of
        them empty (but annotations, if not ``labelled``).

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
    keys = ['images', 'categories', *(['annotations'] if labelled else [])]
    for key in keys:
        if not isinstance(content, dict) or not content.get(key):
            raise ValueError(
                f'{path} has no {key}; expected COCO format with at least '
                f'one entry each in {", ".join(keys)}. To train on '
                'pictures without boxes alone: filter_cfg='
                'dict(filter_empty_gt=False).'
            )
    return content


def check_training_data(dataloader: Any) -> None:
    """Check the annotation files of a train dataloader's CocoDatasets.

    mmdet fails on an empty one with "need at least one array to concatenate".
    One without annotations is of use where pictures without boxes are kept
    (``filter_cfg.filter_empty_gt`` false), for a student that learns from its
    teacher alone.
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
            kept = (dataset.get('filter_cfg') or {}).get('filter_empty_gt')
            read_annotations(Path(path), labelled=kept is not False)


def _datasets(cfg: Any) -> Iterator[Any]:
    """The innermost datasets of wrappers (Repeat, Concat, MultiImageMix)."""
    if not cfg:
        return
    inner = cfg.get('datasets') or [cfg.get('dataset')]
    if inner == [None]:
        yield cfg
    for dataset in inner:
        yield from _datasets(dataset)
