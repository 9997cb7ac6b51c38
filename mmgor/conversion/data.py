"""Puts a folder of one's own images into a config."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from mmdet.datasets import CocoDataset

from mmgor.datasets.data_folder import DataFolder
from mmgor.io.class_names import loader_classes
from mmgor.io.config_reader import type_name, unwrapped_datasets
from mmgor.registry import DATASETS, find

from .source import Code
from .wrapping import place

#: How the config calls what its data sets have in common.
NAME = 'own_data'
# In a ConcatDataset.
_FIRST = '.datasets[0]'
_PANOPTIC = 'LoadPanopticAnnotations'
_PHRASES = 'ODVGDataset'
# Samplers that draw from several data sets, which they find in a list.
_OF_SEVERAL = (
    *('MultiSourceSampler', 'GroupMultiSourceSampler'),
    *('MultiDataSampler', 'CustomSampleSizeSampler'),
)
# Of classes that have boxes.
_COUNTS = ('num_classes', 'num_things_classes')
_FILES = {'train': 'train.json', 'val': 'eval.json', 'test': 'eval.json'}


def data_entries(cfg: Any, folder: DataFolder, root: str) -> dict[str, Any]:
    """The dataloaders and evaluators that read a folder.

    The pipelines of the base config stay.

    Args:
        cfg (Config): The base config.
        folder (DataFolder): Where the data is.
        root (str): The folder, as the config writes it.

    Raises:
        ValueError: If the base config's pipelines read semantic or panoptic
            maps, which the folder does not have, or a sampler draws from
            several data sets.
    """
    entries: dict[str, Any] = {
        NAME: dict(
            data_root=root,
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=folder.classes),
        )
    }
    for stage, name in _FILES.items():
        loader = f'{stage}_dataloader'
        base = cfg.get(loader)
        if not base:
            continue
        _check_sampler(base.get('sampler') or {}, loader)
        written: dict[str, Any] = {}
        keys, inner = _innermost(base['dataset'])
        place(
            written,
            ('dataset', *keys),
            _dataset(inner, name, (loader, 'dataset', *keys)),
        )
        entries[loader] = written
        if stage != 'train':
            entries[f'{stage}_evaluator'] = _evaluator(
                cfg.get(f'{stage}_evaluator'), f'{root}/{name}'
            )
    for key in ('test_dataloader', 'test_evaluator'):
        other = key.replace('test', 'val')
        if key in entries and entries[key] == entries.get(other):
            entries[key] = Code(other)
    return entries


def with_classes(cfg: Any, folder: DataFolder) -> Any:
    """A copy of a config whose model has the number of a folder's classes.

    Args:
        cfg (Config): The base config.
        folder (DataFolder): Where the data is.
    """
    changed = deepcopy(cfg)
    for keys, value in class_settings(cfg, len(folder.classes)):
        place: Any = changed['model']
        for key in keys[:-1]:
            place = place[int(key) if key.isdigit() else key]
        place[keys[-1]] = value
    return changed


def class_settings(
    cfg: Any, number: int
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What a model's config has for the number of its data's classes, for
    another number.

    Args:
        cfg (Config): The base config.
        number (int): The other number.

    Yields:
        tuple[tuple[str, ...], int | list[float]]: Keys from ``model`` on, in
        which numbers are indices of lists; and the number itself, or the
        weights of the classes and of the background.

    Raises:
        ValueError: If the classes have different weights.
    """
    classes = loader_classes(cfg, 'train_dataloader')
    count = len(classes) if classes else None
    yield from _settings(cfg['model'], count, number, ())


def _settings(
    value: Any, count: int | None, number: int, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            keys = (*above, key)
            counts = key in _COUNTS and isinstance(inner, int)
            if counts and count in (None, inner):
                yield keys, number
            elif key == 'class_weight' and _must_change(inner, count, number):
                if len(set(inner[:-1])) > 1:
                    raise ValueError(
                        f'{".".join(("model", *keys))} weighs each of '
                        f'{count} classes differently, and --data has '
                        f'{number}; set it in your config first, for example '
                        f'to {[1.0] * number + inner[-1:]}.'
                    )
                yield keys, [inner[0]] * number + [inner[-1]]
            yield from _settings(inner, count, number, keys)
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _settings(inner, count, number, (*above, str(i)))


def _must_change(weights: Any, count: int | None, number: int) -> bool:
    """Whether these are weights of ``count`` classes and of the background,
    and there will be another number of classes."""
    listed = isinstance(weights, list) and len(weights) - 1 == count
    return listed and count != number


def _innermost(dataset: Any) -> tuple[tuple[str, ...], dict]:
    """Keys to the data set inside wrappers, and its config. Several data sets
    in a list are replaced by one."""
    keys: tuple[str, ...] = ()
    while isinstance(dataset.get('dataset'), dict):
        keys, dataset = (*keys, 'dataset'), dataset['dataset']
    return keys, dataset


def _check_sampler(sampler: dict, loader: str) -> None:
    name = type_name(sampler)
    if name in _OF_SEVERAL:
        raise ValueError(
            f'--data is one data set, but {loader}.sampler is a {name}, '
            'which draws from several, such as labelled and unlabelled '
            'images. Name your images in your own config, and leave --data '
            'out.'
        )


def _dataset(
    base: dict,
    name: str,
    keys: tuple[str, ...],
) -> Code:
    first = next(unwrapped_datasets(base))
    for step in first.get('pipeline') or []:
        if step.get('with_seg') or type_name(step) == _PANOPTIC:
            raise ValueError(
                '--data has boxes and masks, but the pipeline of '
                f'{".".join(keys)} reads semantic maps (with_seg=True, or '
                f'{_PANOPTIC}); expected the config of a detector without '
                'them.'
            )
    if type_name(first) == _PHRASES:
        raise ValueError(
            f'--data has classes, but {".".join(keys)} is of type {_PHRASES}, '
            'whose pipeline samples phrases; expected the config of a '
            'fine-tuning on COCO.'
        )
    kind = find(first.get('type'), registry=DATASETS)
    reads_coco = (
        getattr(kind, 'load_data_list', None) is CocoDataset.load_data_list
    )
    if first is base and reads_coco:
        return Code(f'dict({NAME}, ann_file={name!r})')
    path = '.'.join(('_base_', *keys)) + ('' if first is base else _FIRST)
    lines = [
        NAME,
        '_delete_=True',
        "type='mmdet.CocoDataset'",
        f'ann_file={name!r}',
        f'pipeline={path}.pipeline',
        # For detectors with a language model.
        *(['return_classes=True'] if first.get('return_classes') else []),
    ]
    return Code('dict(\n' + ''.join(f'    {x},\n' for x in lines) + ')')


def _evaluator(base: Any, ann_file: str) -> dict[str, Any]:
    if isinstance(base, dict) and str(base.get('type')).endswith('CocoMetric'):
        # Otherwise a test without annotations would stay one.
        scored = dict(format_only=False) if base.get('format_only') else {}
        return dict(ann_file=ann_file, **scored)
    return dict(
        _delete_=True, type='CocoMetric', metric='bbox', ann_file=ann_file
    )
