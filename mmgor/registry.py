"""The one place that names mmdet's registries, and builds from them.

Everything is registered into mmdet's own registries, so that a stock config
with ``default_scope = 'mmdet'`` finds it without a prefix, and, by
:func:`share_names`, into mmengine's, where every other scope looks last.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import isclass, signature
from typing import Any

from mmdet.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    RUNNERS,
    TASK_UTILS,
    TRANSFORMS,
)
from mmengine.registry import Registry
from torch import nn

from mmgor.io.config_values import nearest

__all__ = [
    'DATASETS',
    'HOOKS',
    'MODELS',
    'RUNNERS',
    'TASK_UTILS',
    'TRANSFORMS',
    'build_own',
    'build_stock',
    'find',
    'naming_typos',
    'share_names',
]

_OWN = __name__.partition('.')[0] + '.'


def share_names() -> None:
    """Let configs of any default scope find mmgor's names unprefixed."""
    for registry in (HOOKS, MODELS):
        common = registry.parent
        for name, module in registry.module_dict.items():
            own = module.__module__.startswith(_OWN)
            if own and name not in common.module_dict:
                common.register_module(name=name, module=module)


def find(
    kind: Any, scope: str | None = None, registry: Registry = MODELS
) -> Any:
    """What a config's ``type`` stands for; None: nothing.

    A name of mmgor's is mmgor's in every scope (others have a PKDLoss as
    well); any other one, with or without a prefix, is looked up there.

    Args:
        kind (str | type): A name, or a class as new-style configs have it.
        scope (str, optional): Where to look; None: in the default scope.
        registry (Registry): mmdet's, of such things.
    """
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    own = registry.module_dict.get(kind)
    if own is not None and own.__module__.startswith(_OWN):
        return own
    with registry.switch_scope_and_registry(scope) as scoped:
        try:
            return scoped.get(kind)
        except RuntimeError:  # mmengine's for a path that leads nowhere
            return None


def build_own(key: str, cfg: Any, base: type[nn.Module], form: str) -> Any:
    """Build a config whose type must be a subclass of ``base``.

    Args:
        key (str): Where it stands in the config.
        cfg (dict): With ``type``.
        base (type): What it must be.
        form (str): What to write there, for the message.

    Raises:
        TypeError: If it has a key that the type does not know.
        ValueError: If it is no such config.
    """
    given = cfg if isinstance(cfg, dict) else {}
    kind = given.get('type')
    found = find(kind, given.get('_scope_'))
    if not (isclass(found) and issubclass(found, base)):
        part = key.partition('.')[0]
        known = sorted(
            name
            for name, module in MODELS.module_dict.items()
            if isclass(module) and issubclass(module, base)
        )
        raise ValueError(
            f'{key} is {cfg!r}; expected {form} with a type out of '
            f'{known}{nearest([kind], known)}. What a base config has in '
            f'{part} goes by {part}=dict(_delete_=True, ...).'
        )
    try:
        with naming_typos(found):
            return MODELS.build(dict(cfg, type=found))
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f'{key}: {error}') from error


def build_stock(key: str, kind: Any, arguments: dict) -> nn.Module:
    """Build the stock module that a wrapper is told by name.

    Args:
        key (str): The wrapper's argument, such as 'backbone'.
        kind (str | type): Registered in the config's default scope, or with
            another one's prefix.
        arguments (dict): The stock module's own.

    Raises:
        TypeError: If it has an argument that the module does not know.
        ValueError: If there is no such module.
    """
    found = find(kind)
    if found is None or (isclass(found) and not issubclass(found, nn.Module)):
        with MODELS.switch_scope_and_registry(None) as registry:
            known = [*registry.module_dict]
        raise ValueError(
            f'{key}={kind!r} is no registered module; expected the name of a '
            f'stock {key}, as in its type=...{nearest([kind], known)}.'
        )
    with naming_typos(found, 'quant'):
        return MODELS.build(dict(arguments, type=found))


@contextmanager
def naming_typos(builder: Any, *more: str) -> Iterator[None]:
    """Say which arguments are spelt like one that was refused."""
    try:
        yield
    except TypeError as error:
        pattern = r"unexpected keyword argument '(\w+)'$"
        refused = re.search(pattern, str(error))
        if refused is None:
            raise
        hint = nearest(refused.groups(), [*more, *_arguments(builder)])
        raise TypeError(f'{error}{hint}.') from error


def _arguments(builder: Any) -> list[str]:
    """Names that a function, or a class and its bases, takes."""
    makers = builder.__mro__ if isclass(builder) else [builder]
    return [name for maker in makers for name in signature(maker).parameters]
