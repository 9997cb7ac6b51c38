"""Class names, from wherever they are told."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file

from mmgor.registry import DATASETS, find

from .config_reader import datasets


def of_dataset(
    dataset: Any, owner: str = 'the data set'
) -> tuple[str, ...] | None:
    """Class names of a data set, or of one that joins several.

    Args:
        dataset (dict | list | Dataset, optional): One or several, as configs
            or built. (The ``metainfo`` of mmdet's ConcatDataset of unequal
            parts is a list.)
        owner (str): What it is, for messages.

    Returns:
        tuple[str, ...] | None: None: no names are known.

    Raises:
        FileNotFoundError: If ``metainfo`` names a file that can't be read.
        ValueError: If the names are no names, or parts differ in their
            classes or in the order of them.
    """
    return _shared(_metainfos(dataset, owner), owner)


def of_checkpoint(meta: Any, owner: str) -> tuple[str, ...] | None:
    """Class names of a checkpoint, None where it has none.

    Args:
        meta (dict): Of the checkpoint: mmdet 3 writes a ``dataset_meta``,
            a list of them for joined data sets; mmdet 2 wrote CLASSES.
        owner (str): What it is, for messages.

    Raises:
        ValueError: If ``meta`` is no such dict, or the names are no names, or
            parts differ.
    """
    found = meta.get('dataset_meta') if isinstance(meta, dict) else meta
    parts = found if isinstance(found, list) else [found or {}]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(
            f'{owner} has the meta {str(meta)[:100]}; expected dict('
            'dataset_meta=dict(classes=[...])), or none.'
        )
    return _shared(parts, owner) or _names(meta or {}, owner)


def _shared(metas: Iterable[Mapping], owner: str) -> tuple[str, ...] | None:
    lists = [_names(meta, owner) for meta in metas]
    for i, names in enumerate(lists):
        if names != lists[0]:
            raise ValueError(
                f'expected the same classes in all data sets of {owner}, got '
                f'{lists[0]} in number 0 and {names} in number {i}. Set '
                'metainfo=dict(classes=[...]) in every one of its datasets.'
            )
    return lists[0] if lists else None


def _metainfos(dataset: Any, owner: str) -> Iterator[Mapping]:
    for part in datasets(dataset):
        if isinstance(part, dict):
            yield _configured(part, owner)
        else:
            built = getattr(part, 'metainfo', {})
            yield from built if isinstance(built, list) else [built]


def _configured(dataset: dict[str, Any], owner: str) -> Mapping:
    """The ``metainfo`` that a data set of this config will have."""
    kind = find(dataset.get('type'), registry=DATASETS)
    meta = {
        **getattr(kind, 'METAINFO', {}),
        **(dataset.get('metainfo') or {}),
    }
    if isinstance(meta.get('classes'), str):
        meta['classes'] = _read(meta['classes'], owner)
    return meta


def _read(path: str, owner: str) -> Any:
    """The file's lines, as mmengine's data sets read it."""
    try:
        return list_from_file(path)
    except (OSError, TypeError) as error:
        # Without a dot or a slash it is one class whose comma is missing.
        if not {'.', '/'} & set(path):
            return path
        raise FileNotFoundError(
            f'class names not found: {path} ({error}); expected '
            f'metainfo.classes of {owner} to be a list of names or a file '
            f'with a name a line, relative to {Path.cwd()}.'
        ) from error


def _names(meta: Mapping, owner: str) -> tuple[str, ...] | None:
    """``classes`` of a ``metainfo``; CLASSES is mmdet 2's spelling."""
    found = meta.get('classes') or meta.get('CLASSES')
    if not found:
        return None
    if isinstance(found, str):
        raise ValueError(
            f'{owner} has the str {found!r} as its list of classes; expected '
            f'a tuple, classes=({found!r},).'
        )
    names = tuple(found) if isinstance(found, Iterable) else (found,)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f'{owner} has the classes {found}; expected a list of names, '
            "such as ['person', 'car']."
        )
    return names
