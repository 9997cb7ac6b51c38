"""What a student needs beside its detector: KD heads and a weighting."""

from typing import Any

from torch import nn

from mmgor.distillation import BaseKDHead
from mmgor.registry import MODELS
from mmgor.weighting import BaseWeighting

_HEADS = 'dict(<name>=dict(type=..., ...))'
_WEIGHTING = 'dict(type=..., ...)'


def build_kd_heads(kd_heads: dict) -> nn.ModuleDict:
    """Build the KD heads.

    Args:
        kd_heads (dict): Name -> config of a registered KD head.

    Raises:
        TypeError: If ``kd_heads`` is no dict.
        ValueError: If an entry is no config of a KD head, or torch refuses its
            name.
    """
    if not isinstance(kd_heads, dict):
        raise TypeError(f'expected kd_heads={_HEADS}, got {kd_heads!r}.')
    heads = nn.ModuleDict()
    for name, cfg in kd_heads.items():
        head = _build(f'kd_heads.{name}', cfg, BaseKDHead, _HEADS)
        try:
            heads[name] = head
        except KeyError as error:
            raise ValueError(
                f'kd_heads.{name}: expected a name that torch.nn.ModuleDict '
                f'takes, such as cls or neck, got {name!r} ({error}).'
            ) from error
    return heads


def build_weighting(cfg: dict) -> BaseWeighting:
    """Build the balancer.

    Args:
        cfg (dict): Config of a registered weighting.

    Raises:
        ValueError: If it is none.
    """
    return _build('gor_weighting', cfg, BaseWeighting, _WEIGHTING)


def _build(key: str, cfg: Any, base: type[nn.Module], form: str) -> Any:
    """Build a config whose type is a subclass of ``base``."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    found = _find(kind) if isinstance(kind, str) else kind
    if not (isinstance(found, type) and issubclass(found, base)):
        known = [
            name
            for name, module in MODELS.module_dict.items()
            if isinstance(module, type) and issubclass(module, base)
        ]
        part = key.partition('.')[0]
        raise ValueError(
            f'{key} is {cfg!r}; expected {part}={form} with a type out of '
            f'{sorted(known)}. What a base config has in {part} goes by '
            f'{part}=dict(_delete_=True, ...).'
        )
    return MODELS.build(cfg)


def _find(name: str) -> Any:
    try:
        return MODELS.get(name)
    except RuntimeError:  # mmengine's for a module path that leads nowhere
        return None
