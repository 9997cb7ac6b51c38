"""What is read out of configs, whatever style they are written in.

A ``type`` is a name, a name with a scope, or, in new-style configs, the class
itself. A data set may stand in wrappers, and there may be several.
"""

from collections.abc import Iterator
from copy import deepcopy
from types import FunctionType
from typing import Any

from mmengine.config import ConfigDict

from mmgor.registry import DATASETS, MODELS, TASK_UTILS, TRANSFORMS


def type_name(part: dict[str, Any]) -> str:
    """Name of a config's ``type`` without its scope, '' where it has none.

    Args:
        part (dict): Config of a module, data set or transform.
    """
    kind = part.get('type', '')
    name = kind if isinstance(kind, str) else kind.__name__
    return name.rpartition('.')[2]


def named(value: Any) -> Any:
    """A config with registered names in place of classes and functions, at
    any depth.

    Args:
        value (Any): Dicts, lists, tuples and what they hold.

    Raises:
        ValueError: If one is in none of mmdet's registries.
    """
    if isinstance(value, dict):
        return type(value)({k: named(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(named(item) for item in value)
    if isinstance(value, (type, FunctionType)):
        return _registered_name(value)
    return value


def _registered_name(kind: type | FunctionType) -> str:
    for registry in (MODELS, TRANSFORMS, TASK_UTILS, DATASETS):
        while registry is not None:
            known = registry.module_dict
            names = [name for name, entry in known.items() if entry is kind]
            if names:
                return kind.__name__ if kind.__name__ in names else names[0]
            registry = registry.parent
    raise ValueError(
        f'the config has {kind.__module__}.{kind.__qualname__}, '
        "which is in none of mmdet's registries; expected a registered one, "
        "such as mmdet's ResNet. Write @MODELS.register_module() above it "
        '(TRANSFORMS above a transform), or the name in its place, such as '
        "nms=dict(type='nms')."
    )


def model_config(cfg: Any) -> ConfigDict:
    """A copy of the config's model with its ``data_preprocessor``.

    One at the config's top level is that of a model without its own, as in
    mmengine's Runner.

    Args:
        cfg (Config): With ``model``.
    """
    model = ConfigDict(deepcopy(cfg['model']))
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg['data_preprocessor'])
    return model


def datasets(dataset: Any) -> Iterator[Any]:
    """The data sets in a config, out of their wrappers.

    Args:
        dataset (Any): Config of a dataloader's data set, or several, or
            None. Wrappers hold others in ``dataset`` (RepeatDataset,
            ClassBalancedDataset, MultiImageMixDataset) or ``datasets``
            (ConcatDataset).

    Returns:
        Iterator: Configs, in their order; a data set that is built already
        is given as it is.
    """
    if isinstance(dataset, (list, tuple)):
        for one in dataset:
            yield from datasets(one)
        return
    inner = None
    if isinstance(dataset, dict):
        inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is not None and not isinstance(inner, str):
        yield from datasets(inner)
    elif dataset is not None and not _is_empty(dataset):
        yield dataset


def _is_empty(dataset: Any) -> bool:
    # A built data set of no images is not asked for its length.
    return isinstance(dataset, dict) and not dataset


def loader_datasets(cfg: Any, loader: str) -> list[Any]:
    """:func:`datasets` of one of a config's dataloaders.

    Args:
        cfg (Config): May lack the dataloader.
        loader (str): E.g. 'test_dataloader'.
    """
    return list(datasets((cfg.get(loader) or {}).get('dataset')))
