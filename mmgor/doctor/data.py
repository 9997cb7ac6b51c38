"""Checks of a config's data sets: files, images, boxes, classes, sizes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

from mmengine.config import Config

from mmgor.datasets import (
    check_evaluation_data,
    check_training_data,
    read_annotations,
)
from mmgor.datasets.checks import coco_files, image_files
from mmgor.datasets.coco_boxes import USUAL, box_fates
from mmgor.dense_heads.spec import head_strides
from mmgor.deploy.input_size import configured_size
from mmgor.io.class_names import count_classes, dataset_classes
from mmgor.io.config_reader import loader_datasets
from mmgor.io.config_values import nearest
from mmgor.registry import DATASETS, find

from .findings import ERROR, OK, WARNING, Finding, guarded, quiet
from .images import image_findings, in_colour

# Share of boxes from which a fault or a size is worth a warning.
_MANY = 0.01
_SMALL = 0.1
_SHOWN = 5


def data_findings(cfg: Config, model: Any) -> Iterator[Finding]:
    """The data sets of training and evaluation.

    Args:
        cfg (Config): The config.
        model (nn.Module, optional): Its model, for the strides of its head
            and its number of classes.
    """
    val = cfg.get('val_dataloader')
    parts = [
        ('train', cfg.get('train_dataloader'), None),
        ('val', val, cfg.get('val_evaluator')),
    ]
    test = cfg.get('test_dataloader')
    if test and loader_datasets(cfg, 'test_dataloader') != loader_datasets(
        cfg, 'val_dataloader'
    ):
        parts.append(('test', test, cfg.get('test_evaluator')))
    for name, loader, evaluator in parts:
        what = f'{name}_dataloader'
        if not loader:
            yield Finding(WARNING, what, 'there is none')
            continue
        yield from guarded(
            what,
            partial(_loader, cfg, model, what, name, loader, evaluator),
            f'correct what the message names in {what}',
        )


def _loader(
    cfg: Config, model: Any, what: str, name: str, loader: Any, evaluator: Any
) -> Iterator[Finding]:
    yield from type_findings(what, loader_datasets(cfg, what))
    with quiet():
        if name == 'train':
            check_training_data(loader)
        else:
            check_evaluation_data(loader, evaluator)
    found = list(coco_files(loader))
    others = len(loader_datasets(cfg, what)) - len(found)
    if others:
        text = f'{others} data sets are not in COCO format: not checked'
        yield Finding(OK, what, text)
    for dataset, path in found:
        content = read_annotations(path, labelled=False)
        where = f'{what} {path.name}'
        names = [category['name'] for category in content['categories']]
        classes = list(dataset_classes(dataset, where) or names)
        boxes = content.get('annotations') or []
        yield Finding(
            OK,
            where,
            f'{len(content["images"])} images ({_unlabelled(content)} without '
            f'boxes), {len(boxes)} boxes, {len(classes)} classes',
        )
        yield from box_findings(where, content, classes)
        yield from class_findings(
            where, content, classes, count_classes(model)
        )
        yield from image_findings(
            where, image_files(dataset, content), content, in_colour(dataset)
        )
        if name == 'train':
            yield from _sizes(cfg, model, where, content)


def _unlabelled(content: dict) -> int:
    """Number of images without boxes."""
    labelled = {x['image_id'] for x in content.get('annotations') or []}
    return sum(image['id'] not in labelled for image in content['images'])


def type_findings(what: str, datasets: Sequence[Any]) -> Iterator[Finding]:
    """Data sets of a type that nobody registered.

    Args:
        what (str): The dataloader.
        datasets (Sequence): Configs of its data sets, without wrappers.
    """
    for dataset in datasets:
        if isinstance(dataset, dict):
            kind = dataset.get('type')
            if find(kind, dataset.get('_scope_'), DATASETS) is None:
                yield Finding(
                    ERROR,
                    what,
                    f'no data set is registered as {kind!r}',
                    f'correct type in {what}.dataset'
                    f'{nearest([kind], [*DATASETS.module_dict])}, or import '
                    'the module that registers it with custom_imports',
                )


def box_findings(
    where: str, content: dict, classes: list[str]
) -> Iterator[Finding]:
    """Boxes that mmdet drops, and boxes that leave their image.

    Args:
        where (str): What the findings are about.
        content (dict): A COCO file.
        classes (list[str]): Names of the classes.
    """
    fates = box_fates(content, classes)
    total = max(1, fates.total())
    lost = {fate: n for fate, n in fates.items() if fate not in USUAL}
    if lost:
        text = ', '.join(f'{count} {fate}' for fate, count in lost.items())
        yield Finding(
            WARNING,
            where,
            f'mmdet leaves out {sum(lost.values())} of {total} boxes: {text}',
            f'correct them in {where.split(" ", 1)[-1]}: boxes are [x, y, '
            'width, height] in pixels',
        )
    sizes = {x['id']: (x['width'], x['height']) for x in content['images']}
    outside = sum(
        _sticks_out(box['bbox'], sizes[box['image_id']])
        for box in content.get('annotations') or []
        if box['image_id'] in sizes
    )
    if outside > _MANY * total:
        yield Finding(
            WARNING,
            where,
            f'{outside} of {total} boxes reach beyond their image',
            'if the images were rotated or resized, make the file again; '
            'boxes are [x, y, width, height], not [x1, y1, x2, y2]',
        )


def _sticks_out(box: list[float], size: tuple[float, float]) -> bool:
    left, top, width, height = box
    return (
        left < -1
        or top < -1
        or left + width > size[0] + 1
        or top + height > size[1] + 1
    )


def class_findings(
    where: str, content: dict, classes: list[str], outputs: int | None
) -> Iterator[Finding]:
    """Class names of the config against the categories of the file.

    Args:
        where (str): What the findings are about.
        content (dict): A COCO file.
        classes (list[str]): Names of the classes.
        outputs (int, optional): Number of classes of the head.
    """
    names = {x['id']: x['name'] for x in content['categories']}
    listed = [name for name in names.values() if name in classes]
    if outputs is not None and outputs != len(classes):
        yield Finding(
            ERROR,
            where,
            f'{len(classes)} classes, but the head has {outputs}',
            f'write num_classes={len(classes)} in the head',
        )
    # A class that the file lacks moves the labels of those behind it.
    if listed != classes[: len(listed)]:
        yield Finding(
            ERROR,
            where,
            f'the file has the classes {listed[:_SHOWN]}, the config '
            f'{classes[:_SHOWN]}: mmdet numbers labels as the file does, so '
            'names and labels do not match',
            'write metainfo=dict(classes=...) with the names and the order '
            "of the file's categories",
        )
    foreign = [name for name in names.values() if name not in classes]
    if foreign:
        yield Finding(
            WARNING,
            where,
            f'{len(foreign)} categories are no classes: {foreign[:_SHOWN]}',
            'add them to metainfo=dict(classes=...), or leave them out',
        )
    boxes = content.get('annotations') or []
    counts = Counter(names.get(box['category_id']) for box in boxes)
    empty = [name for name in classes if not counts[name]]
    if empty and boxes:
        yield Finding(
            WARNING,
            where,
            f'{len(empty)} of {len(classes)} classes have no box: '
            f'{empty[:_SHOWN]}',
            'label some, or leave the class out',
        )


def _sizes(
    cfg: Config, model: Any, where: str, content: dict
) -> Iterator[Finding]:
    heads = [getattr(model, n, None) for n in ('bbox_head', 'rpn_head')]
    head: Any = next((head for head in heads if head is not None), None)
    try:
        stride = min(head_strides(head))
        size = configured_size(cfg)
    except ValueError:
        return  # no levels, or images of any size
    yield from size_findings(where, content, size, stride)


def size_findings(
    where: str, content: dict, size: tuple[int, int], stride: int
) -> Iterator[Finding]:
    """Objects against the finest level of the head.

    Args:
        where (str): What the findings are about.
        content (dict): A COCO file.
        size (tuple[int, int]): Height and width in pixels that images are
            resized into.
        stride (int): Of the finest level, in pixels.
    """
    sides = object_sides(content, size)
    if not sides:
        return
    small = sum(side < stride for side in sides) / len(sides)
    text = (
        f'objects are {median(sides):.0f} pixels large (median, at '
        f'{size[1]} x {size[0]}); {small:.0%} are smaller than the finest '
        f'stride of the head, {stride}'
    )
    if small < _SMALL:
        yield Finding(OK, where, text)
    else:
        yield Finding(
            WARNING,
            where,
            text,
            'larger images (scale of Resize), or a head with a finer level',
        )


def object_sides(content: dict, size: tuple[int, int]) -> list[float]:
    """Square root of each box's area after the images are resized.

    Args:
        content (dict): A COCO file.
        size (tuple[int, int]): Height and width in pixels that the images
            are resized into; their aspect ratio is kept.
    """
    long, short = max(size), min(size)
    factors = {}
    for image in content['images']:
        sides = image['width'], image['height']
        factor = min(long / max(sides), short / min(sides))
        factors[image['id']] = factor
    return [
        factors[box['image_id']]
        * (max(0.0, box['bbox'][2]) * max(0.0, box['bbox'][3])) ** 0.5
        for box in content.get('annotations') or []
        if box['image_id'] in factors
    ]
