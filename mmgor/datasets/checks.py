"""Look at a config's COCO files before a run starts.

mmdet fails on an empty one with "need at least one array to concatenate", and
trains on what it keeps of others without a word. Here is said which file it
is and what is wrong in it. Looked at are files that CocoDataset's own code
reads; other data sets, and files behind a storage backend (``s3://``), are
left to mmdet.
"""

import logging
import os
import os.path as osp
from collections import Counter
from collections.abc import Iterator
from inspect import isclass
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.logging import print_log

from mmgor.io.config_reader import datasets
from mmgor.registry import DATASETS, find

from .annotations import check_entries, read_annotations, read_json
from .coco_boxes import NO_AREA, USED, USUAL, box_fates, kept_images

_RULES = ('load_data_list', 'parse_data_info', 'filter_data')


def check_training_data(dataloader: Any) -> None:
    """Check the annotation files of a train dataloader's CocoDatasets.

    One without annotations is of use where pictures without boxes are kept
    (``filter_cfg.filter_empty_gt`` false), for a student that learns from its
    teacher alone, and beside others. Boxes that are left out for an unusual
    reason are told.

    Args:
        dataloader (dict, optional): ``cfg.train_dataloader``.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is of no use, or an image file is empty.
    """
    alone = len(_parts(dataloader)) == 1
    for dataset, path in _coco_files(dataloader):
        filter_cfg = dataset.get('filter_cfg') or {}
        labelled = alone and filter_cfg.get('filter_empty_gt') is not False
        content = read_annotations(path, labelled)
        check_entries(path, content)
        classes = _check_classes(dataset, path, content)
        _check_boxes(path, box_fates(content, classes), labelled)
        if not kept_images(content, classes, filter_cfg):
            raise ValueError(
                f'{path}: filter_cfg={dict(filter_cfg)} leaves none of its '
                f'{len(content["images"])} images; expected at least one. '
                'min_size is in pixels, filter_empty_gt drops those without '
                'boxes of the classes.'
            )
        _check_image_files(dataset, path, content)


def check_evaluation_data(dataloader: Any, evaluator: Any) -> None:
    """Check the annotation files that an evaluation reads.

    Args:
        dataloader (dict, optional): ``cfg.val_dataloader``, or test.
        evaluator (dict | list, optional): ``cfg.val_evaluator``, or test.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is of no use, or an image file is empty.
    """
    for dataset, path in _coco_files(dataloader):
        content = read_annotations(path, labelled=False)
        check_entries(path, content)
        if content.get('annotations'):
            _check_classes(dataset, path, content)
        _check_image_files(dataset, path, content)
    metrics = evaluator if isinstance(evaluator, list) else [evaluator]
    for metric in (m for m in metrics if isinstance(m, dict)):
        name = str(metric.get('ann_file'))
        local = '://' not in name and not metric.get('backend_args')
        if name.endswith('.json') and local:
            read_json(Path(name))


def _parts(dataloader: Any) -> list[Any]:
    loader = dataloader if isinstance(dataloader, dict) else {}
    return list(datasets(loader.get('dataset')))


def _coco_files(dataloader: Any) -> Iterator[tuple[dict, Path]]:
    """Configs of the loader's CocoDatasets with their files."""
    for dataset in _parts(dataloader):
        if not isinstance(dataset, dict):  # built, and so read
            continue
        name = dataset.get('ann_file')
        if not name or not _is_coco(dataset) or dataset.get('backend_args'):
            continue
        path = osp.join(dataset.get('data_root') or '', name)
        if '://' not in path:
            yield dataset, Path(path)


def _is_coco(dataset: dict) -> bool:
    kind = find(dataset.get('type'), registry=DATASETS)
    return (
        isclass(kind)
        and issubclass(kind, CocoDataset)
        and all(getattr(kind, r) is getattr(CocoDataset, r) for r in _RULES)
    )


def _check_classes(dataset: dict, path: Path, content: dict) -> list[str]:
    """The data set's class names, which must fit the file's categories."""
    kind = find(dataset['type'], registry=DATASETS)
    names = [category['name'] for category in content['categories']]
    given = kind._load_metainfo(dataset.get('metainfo')).get('classes', names)
    classes = [given] if isinstance(given, str) else list(given)
    trained = [name for name in names if name in classes]
    if not trained:
        raise ValueError(
            f'{path} has the categories {names[:10]}, the data set the '
            f'classes {classes[:10]}: expected some in both. Set metainfo='
            f'dict(classes={tuple(names[:3])}) there, with all names.'
        )
    if trained != classes[: len(trained)]:
        print_log(
            f'{path}: mmdet numbers labels as the file does, {trained[:10]}, '
            f'but names them by the classes {classes[:10]}; expected the '
            'same order. Sort metainfo=dict(classes=...) like the file.',
            logger='current',
            level=logging.WARNING,
        )
    return classes


def _check_boxes(path: Path, fates: Counter[str], labelled: bool) -> None:
    total = fates.total()
    told = ', '.join(f'{count} {fate}' for fate, count in fates.most_common())
    if NO_AREA in fates or (labelled and not fates[USED]):
        raise ValueError(
            f'{path} has {total} boxes that mmdet cannot train on as they '
            f'are: {told}. Expected boxes [x, y, width, height] in pixels, '
            'inside their images, with area, iscrowd=0 and a category of the '
            'file. To train on pictures without boxes alone: filter_cfg='
            'dict(filter_empty_gt=False).'
        )
    lost = sum(fates[fate] for fate in set(fates) - USUAL)
    if lost:
        print_log(
            f'{path}: mmdet leaves out some of {total} boxes: {told}.',
            logger='current',
            level=logging.WARNING if lost > total / 100 else logging.INFO,
        )


def _check_image_files(dataset: dict, path: Path, content: dict) -> None:
    """No image file is empty: the decoder's error would not name it."""
    steps = [s for s in dataset.get('pipeline') or [] if isinstance(s, dict)]
    if any(step.get('ignore_empty') for step in steps):
        return
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    folder = osp.join(dataset.get('data_root') or '', prefix)
    files = [osp.join(folder, x['file_name']) for x in content['images']]
    empty = [file for file in files if _size(file) == 0]
    if empty:
        raise ValueError(
            f'{len(empty)} of {len(files)} images of {path} are empty files, '
            f'e.g. {empty[:3]}; expected images. Copy them anew, or take '
            'them out of the file.'
        )


def _size(file: str) -> int | None:
    """In bytes; None where mmdet must look for it."""
    try:
        return os.stat(file).st_size
    except OSError:
        return None
