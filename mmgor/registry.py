"""mmdet's registries, and functions that build modules from them.

All other files import the registries from here. mmgor registers its modules
in mmdet's own registries, so that a config with ``default_scope = 'mmdet'``
finds them without a prefix. :func:`share_names` adds them to mmengine's root
registries, where every other scope looks last.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import isclass, signature
from typing import Any

import mmdet.registry
from mmdet.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    RUNNERS,
    TASK_UTILS,
    TRANSFORMS,
)
from mmengine.config.utils import MODULE2PACKAGE
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
    'add_scope',
    'build_own',
    'build_stock',
    'find',
    'naming_typos',
    'share_names',
]

_SCOPE = __name__.partition('.')[0]
_OWN = _SCOPE + '.'
# What mmdet's registries hold is in these.
_LOCATIONS = [
    f'mmdet.{part}'
    for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization')
]


def add_scope() -> None:
    """Let configs start from mmgor's own, as in
    ``_base_ = 'mmgor::gor/retinanet_r18_w4_from_r101.py'``.

    mmengine gives what such a base defines the scope 'mmgor'. The registries
    of this scope are empty: they look in mmdet's.
    """
    # mmengine asks a distribution for its folder, but an editable install is
    # elsewhere. It asks a module, which is no distribution, for its file.
    MODULE2PACKAGE[_SCOPE] = f'{_SCOPE}.version'
    for registry in vars(mmdet.registry).values():
        if isinstance(registry, Registry) and _SCOPE not in registry.children:
            Registry(
                registry.name,
                parent=registry,
                scope=_SCOPE,
                locations=_LOCATIONS,
            )


def share_names() -> None:
    """Let configs of any default scope find mmgor's names without a prefix."""
    for registry in (HOOKS, MODELS):
        common = registry.parent
        for name, module in registry.module_dict.items():
            own = module.__module__.startswith(_OWN)
            if own and name not in common.module_dict:
                common.register_module(name=name, module=module)


def find(
    kind: Any, scope: str | None = None, registry: Registry = MODELS
) -> Any:
    """The class or function that a config's ``type`` stands for, or None.

    A name that mmgor registers means mmgor's module in every scope, even if
    the scope has a module of that name too (PKDLoss is an example). Any other
    name, with or without a prefix, is looked up in ``scope``.

    Args:
        kind (str | type): A name, or a class as in new-style configs.
        scope (str, optional): Scope to look in. Default: the default scope.
        registry (Registry): The registry of mmdet to look in.
    """
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    own = registry.module_dict.get(kind)
    if own is not None and own.__module__.startswith(_OWN):
        return own
    with registry.switch_scope_and_registry(scope) as scoped:
        try:
            return scoped.get(kind)
        except RuntimeError:  # mmengine's error for an unknown dotted path
            return None


def build_own(key: str, cfg: Any, base: type[nn.Module], form: str) -> Any:
    """Build a module whose type must be a subclass of ``base``.

    Args:
        key (str): The module's place in the config, for messages.
        cfg (dict): Config of the module, with ``type``.
        base (type): Class that the type must be a subclass of.
        form (str): What a user should write there, for messages.

    Raises:
        TypeError: If ``cfg`` has a key that the type does not accept.
        ValueError: If ``cfg`` is not a dict with such a type.
    """
    given = cfg if isinstance(cfg, dict) else {}
    kind = given.get('type')
    found = find(kind, given.get('_scope_'))
    if not (isclass(found) and issubclass(found, base)):
        top = key.partition('.')[0]
        known = sorted(
            name
            for name, module in MODELS.module_dict.items()
            if isclass(module) and issubclass(module, base)
        )
        raise ValueError(
            f'{key} is {cfg!r}; expected {form} with one of the types '
            f'{known}{nearest([kind], known)}. To drop what a base config '
            f'has in {top}, write {top}=dict(_delete_=True, ...).'
        )
    try:
        with naming_typos(found):
            return MODELS.build(dict(cfg, type=found))
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f'{key}: {error}') from error


def build_stock(key: str, kind: Any, arguments: dict) -> nn.Module:
    """Build the stock module that a quantizing wrapper names.

    Args:
        key (str): The wrapper's argument, such as 'backbone'.
        kind (str | type): Name registered in the config's default scope, or
            in another scope if it has that scope's prefix; or a class.
        arguments (dict): The stock module's own arguments.

    Raises:
        TypeError: If the module does not accept one of the arguments.
        ValueError: If no module has that name.
    """
    found = find(kind)
    if found is None or (isclass(found) and not issubclass(found, nn.Module)):
        with MODELS.switch_scope_and_registry(None) as registry:
            known = [*registry.module_dict]
        raise ValueError(
            f'{key}={kind!r} is not a registered module; expected the name '
            f'of a stock {key}, as in its type=...{nearest([kind], known)}.'
            f'{_import_error(kind)}'
        )
    with naming_typos(found, 'quant'):
        return MODELS.build(dict(arguments, type=found))


def _import_error(kind: Any) -> str:
    """Why the package that a prefix names has no registry, '' if it has."""
    if not isinstance(kind, str):
        return ''
    scope = kind.partition('.')[0] if '.' in kind else MODELS.scope
    if scope in MODELS.root.children:
        return ''
    try:
        import_module(f'{scope}.registry')
    except ImportError as error:  # mmengine passes over it
        return f' The package {scope!r} could not be imported: {error}.'
    return ''


@contextmanager
def naming_typos(builder: Any, *more: str) -> Iterator[None]:
    """Add arguments of a similar spelling to the error of a refused one."""
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
    """Argument names of a function, or of a class and its bases."""
    makers = builder.__mro__ if isclass(builder) else [builder]
    return [name for maker in makers for name in signature(maker).parameters]
