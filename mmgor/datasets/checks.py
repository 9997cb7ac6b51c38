"""Check the COCO files of a config before a run starts.

mmdet fails on an empty file with "need at least one array to concatenate",
and silently drops what it can't use in others. These checks name the file and
the fault. They cover files that the code of CocoDataset itself reads. Other
data sets, and files behind a storage backend (``s3://``), are left to mmdet.
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

from mmgor.io.class_names import dataset_classes
from mmgor.io.config_reader import unwrapped_datasets
from mmgor.registry import DATASETS, find

from .annotations import check_entries, read_annotations, read_json
from .coco_boxes import NO_AREA, USED, USUAL, box_fates, kept_images
from .narrow_images import narrow_images

# The methods of CocoDataset whose rules are checked here.
_RULES = ('load_data_list', 'parse_data_info', 'filter_data')


def check_training_data(dataloader: Any) -> None:
    """Check the annotation files of a training dataloader's CocoDatasets.

    A file without annotations is accepted beside other files, and where
    images without boxes are kept (``filter_cfg.filter_empty_gt`` is False),
    for a student that learns from its teacher only. The log counts boxes that
    mmdet leaves out for an unusual reason.

    Args:
        dataloader (dict, optional): ``cfg.train_dataloader``.

    Raises:
        FileNotFoundError: If an annotation file does not exist.
        ValueError: If a file can't be trained on, or an image file is empty
            or would vanish when it is resized.
    """
    alone = len(_parts(dataloader)) == 1
    for dataset, path in coco_files(dataloader):
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
                'min_size is in pixels, and filter_empty_gt drops images '
                'without boxes of the classes.'
            )
        _check_image_files(dataset, path, content)


def check_evaluation_data(dataloader: Any, evaluator: Any) -> None:
    """Check the annotation files that an evaluation reads.

    Args:
        dataloader (dict, optional): ``cfg.val_dataloader`` or
            ``cfg.test_dataloader``.
        evaluator (dict | list, optional): ``cfg.val_evaluator`` or
            ``cfg.test_evaluator``.

    Raises:
        FileNotFoundError: If an annotation file does not exist.
        ValueError: If a file can't be used, or an image file is empty or
            would vanish when it is resized.
    """
    for dataset, path in coco_files(dataloader):
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
    return list(unwrapped_datasets(loader.get('dataset')))


def coco_files(dataloader: Any) -> Iterator[tuple[dict, Path]]:
    """The annotation files of a loader's CocoDatasets.

    Args:
        dataloader (dict, optional): E.g. ``cfg.train_dataloader``.

    Yields:
        tuple[dict, Path]: Config and annotation file of each.
    """
    for dataset in _parts(dataloader):
        if not isinstance(dataset, dict):  # built: mmdet has read the file
            continue
        name = dataset.get('ann_file')
        if not name or not _is_coco(dataset) or dataset.get('backend_args'):
            continue
        path = osp.join(dataset.get('data_root') or '', name)
        if '://' not in path:
            yield dataset, Path(path)


def _is_coco(dataset: dict) -> bool:
    kind = find(dataset.get('type'), dataset.get('_scope_'), DATASETS)
    return (
        isclass(kind)
        and issubclass(kind, CocoDataset)
        and all(getattr(kind, r) is getattr(CocoDataset, r) for r in _RULES)
    )


def _check_classes(dataset: dict, path: Path, content: dict) -> list[str]:
    """Class names of the data set, which must fit the file's categories."""
    names = [category['name'] for category in content['categories']]
    found = dataset_classes(dataset, f'the data set of {path}')
    classes = list(found or names)
    trained = [name for name in names if name in classes]
    if not trained:
        raise ValueError(
            f'{path} has the categories {names[:10]}, the data set the '
            f'classes {classes[:10]}: expected names that are in both. Set '
            f'metainfo=dict(classes={tuple(names[:3])}) in the data set, with '
            'all names.'
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
    counts = ', '.join(
        f'{count} {fate}' for fate, count in fates.most_common()
    )
    if NO_AREA in fates or (labelled and not fates[USED]):
        raise ValueError(
            f'{path} has {total} boxes that mmdet cannot train on as they '
            f'are: {counts}. Expected boxes [x, y, width, height] in pixels, '
            'inside their images, with area, iscrowd=0 and a category of the '
            'file. To train only on images without boxes: filter_cfg='
            'dict(filter_empty_gt=False).'
        )
    lost = sum(fates[fate] for fate in set(fates) - USUAL)
    if lost:
        print_log(
            f'{path}: mmdet leaves out some of {total} boxes: {counts}.',
            logger='current',
            level=logging.WARNING if lost > total / 100 else logging.INFO,
        )


def _check_image_files(dataset: dict, path: Path, content: dict) -> None:
    """Refuse images whose errors in the pipeline would not name them."""
    steps = [s for s in dataset.get('pipeline') or [] if isinstance(s, dict)]
    narrow = narrow_images(steps, content['images'])
    if narrow:
        first = narrow[0]
        raise ValueError(
            f'{len(narrow)} of {len(content["images"])} images of {path} are '
            'so narrow that Resize leaves no pixel of them, e.g. '
            f'{first["file_name"]!r} of {first["width"]} x '
            f'{first["height"]} pixels. Cut them into pieces, or remove them '
            'from the file.'
        )
    if any(step.get('ignore_empty') for step in steps):
        return
    files = image_files(dataset, content)
    empty = [file for file in files if _size(file) == 0]
    if empty:
        raise ValueError(
            f'{len(empty)} of {len(files)} images of {path} are empty files, '
            f'e.g. {empty[:3]}; expected images. Copy them again, or remove '
            'them from the file.'
        )


def image_files(dataset: dict, content: dict) -> list[str]:
    """Paths of a CocoDataset's image files.

    Args:
        dataset (dict): Its config.
        content (dict): Its annotation file.
    """
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    folder = osp.join(dataset.get('data_root') or '', prefix)
    return [osp.join(folder, x['file_name']) for x in content['images']]


def _size(file: str) -> int | None:
    """Size in bytes; None if mmdet has to search for the file."""
    try:
        return os.stat(file).st_size
    except OSError:
        return None
