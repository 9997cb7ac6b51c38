"""Find class names in checkpoints, configs and built data sets; count the
classes of a head."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file
from torch import nn

from mmgor.registry import DATASETS, find

from .config_reader import loader_datasets, unwrapped_datasets

# The dataloaders of a config, in the order in which they are searched.
_LOADERS = ('val_dataloader', 'test_dataloader', 'train_dataloader')


def find_classes(meta: Any, config: Any, owner: str) -> tuple[str, ...] | None:
    """Class names of a model: those in its checkpoint, else in its config.

    Args:
        meta (dict): See :func:`checkpoint_classes`.
        config (Config | dict): See :func:`config_classes`.
        owner (str): The model's name for error messages.

    Returns:
        tuple[str, ...] | None: None if neither has class names.

    Raises:
        FileNotFoundError: See :func:`config_classes`.
        ValueError: See :func:`checkpoint_classes` and
            :func:`config_classes`.
    """
    found = checkpoint_classes(meta, f'the checkpoint of {owner}')
    return found or config_classes(config, f'the config of {owner}')


def checkpoint_classes(meta: Any, owner: str) -> tuple[str, ...] | None:
    """Class names in the meta of a checkpoint, None if it has none.

    Args:
        meta (dict, optional): mmdet 3 writes the names to ``dataset_meta``,
            which is a list for joined data sets; mmdet 2 wrote CLASSES.
        owner (str): The checkpoint's name for error messages.

    Raises:
        ValueError: If ``meta`` is not such a dict, the classes are not a
            list of names, or joined data sets have different classes.
    """
    found = meta.get('dataset_meta') if isinstance(meta, dict) else meta
    parts = found if isinstance(found, list) else [found or {}]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(
            f'{owner} has the meta {str(meta)[:100]}; expected dict('
            'dataset_meta=dict(classes=[...])), or none.'
        )
    return _shared(parts, owner) or _names(meta or {}, owner)


def config_classes(config: Any, owner: str) -> tuple[str, ...] | None:
    """Class names of the first dataloader that has some: validation, test,
    training.

    Args:
        config (Config | dict): May have no dataloader.
        owner (str): The config's name for error messages.

    Raises:
        FileNotFoundError: See :func:`dataset_classes`.
        ValueError: See :func:`dataset_classes`.
    """
    for loader in _LOADERS:
        found = loader_classes(config, loader, owner)
        if found:
            return found
    return None


def loader_classes(
    config: Any, loader: str, owner: str = 'the config'
) -> tuple[str, ...] | None:
    """Class names of one of a config's dataloaders, None if it has none.

    Args:
        config (Config | dict): May lack the dataloader.
        loader (str): E.g. 'test_dataloader'.
        owner (str): The config's name for error messages.

    Raises:
        FileNotFoundError: See :func:`dataset_classes`.
        ValueError: See :func:`dataset_classes`.
    """
    data = loader_datasets(config, loader)
    scope = config.get('default_scope')
    return dataset_classes(data, f'{loader}.dataset of {owner}', scope)


def dataset_classes(
    dataset: Any, owner: str = 'the data set', scope: str | None = None
) -> tuple[str, ...] | None:
    """Class names of a data set, or of several that are joined.

    Args:
        dataset (dict | list | Dataset, optional): One or several, as configs
            or built. The ``metainfo`` of mmdet's ConcatDataset of unequal
            parts is a list.
        owner (str): The data set's name for error messages.
        scope (str, optional): Scope in which the types of configs are looked
            up. Default: the default scope.

    Returns:
        tuple[str, ...] | None: None if the data set has no class names.

    Raises:
        FileNotFoundError: If ``metainfo`` names a file that can't be read.
        ValueError: If the classes are not a list of names, or the data sets
            have different classes or another order.
    """
    return _shared(_metainfos(dataset, owner, scope), owner)


def count_classes(model: Any) -> int | None:
    """Number of foreground classes of a detector's box head.

    Args:
        model (nn.Module): The detector.

    Returns:
        int | None: None where the head does not declare it.
    """
    head = getattr(model, 'bbox_head', None)
    if head is None:
        head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    if isinstance(head, nn.ModuleList):  # a cascade
        head = head[-1]
    return getattr(head, 'num_classes', None)


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


def _metainfos(
    dataset: Any, owner: str, scope: str | None
) -> Iterator[Mapping]:
    for part in unwrapped_datasets(dataset):
        if isinstance(part, dict):
            yield _configured(part, owner, scope)
        else:
            built = getattr(part, 'metainfo', {})
            yield from built if isinstance(built, list) else [built]


def _configured(
    dataset: dict[str, Any], owner: str, scope: str | None
) -> Mapping:
    """The ``metainfo`` of the data set that this config describes."""
    scope = dataset.get('_scope_') or scope
    kind = find(dataset.get('type'), scope, DATASETS)
    meta = {
        **getattr(kind, 'METAINFO', {}),
        **(dataset.get('metainfo') or {}),
    }
    if isinstance(meta.get('classes'), str):
        meta['classes'] = _read(meta['classes'], owner)
    return meta


def _read(path: str, owner: str) -> Any:
    """The lines of a file, which mmengine's data sets take as names."""
    try:
        return list_from_file(path)
    except (OSError, TypeError) as error:
        # Without a dot or a slash it is a class name, not a path: the caller
        # refuses it, since a list of classes is missing its comma.
        if not {'.', '/'} & set(path):
            return path
        raise FileNotFoundError(
            f'class names not found: {path} ({error}); expected '
            f'metainfo.classes of {owner} to be a list of names or a file '
            f'with one name per line, relative to {Path.cwd()}.'
        ) from error


def _names(meta: Mapping, owner: str) -> tuple[str, ...] | None:
    """``classes`` of a ``metainfo``; mmdet 2 wrote CLASSES."""
    found = meta.get('classes') or meta.get('CLASSES')
    if not found:
        return None
    if isinstance(found, str):
        raise ValueError(
            f'{owner} has the string {found!r} as its list of classes; '
            f'expected a tuple, classes=({found!r},).'
        )
    names = tuple(found) if isinstance(found, Iterable) else (found,)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f'{owner} has the classes {found}; expected a list of names, '
            "such as ['person', 'car']."
        )
    return names
