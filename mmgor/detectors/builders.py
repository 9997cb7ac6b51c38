"""Build the KD heads and the weighting of a student from its config."""

from torch import nn

from mmgor.distillation import BaseKDHead
from mmgor.registry import build_own
from mmgor.weighting import BaseWeighting

_HEADS = 'kd_heads=dict(<name>=dict(type=..., ...))'
_WEIGHTING = 'gor_weighting=dict(type=..., ...)'


def build_kd_heads(kd_heads: dict) -> nn.ModuleDict:
    """Build the KD heads.

    Args:
        kd_heads (dict): Name -> config of a registered KD head.

    Returns:
        nn.ModuleDict: Name -> KD head, not yet bound to its teachers.

    Raises:
        TypeError: If ``kd_heads`` is not a dict, or a head has an unknown
            key.
        ValueError: If an entry is not the config of a KD head, or torch
            refuses its name.
    """
    if not isinstance(kd_heads, dict):
        raise TypeError(f'expected {_HEADS}, got kd_heads={kd_heads!r}.')
    heads = nn.ModuleDict()
    for name, cfg in kd_heads.items():
        head = build_own(f'kd_heads.{name}', cfg, BaseKDHead, _HEADS)
        try:
            heads[name] = head
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'kd_heads.{name}: expected a name that torch.nn.ModuleDict '
                f'takes, such as cls or neck, got {name!r} ({error}).'
            ) from error
    return heads


def build_weighting(cfg: dict) -> BaseWeighting:
    """Build what weighs the losses: GoR, fixed weights or another balancer.

    Args:
        cfg (dict): Config of a registered weighting.

    Returns:
        BaseWeighting: The weighting.

    Raises:
        TypeError: If the config has an unknown key.
        ValueError: If it is not the config of a registered weighting.
    """
    return build_own('gor_weighting', cfg, BaseWeighting, _WEIGHTING)
