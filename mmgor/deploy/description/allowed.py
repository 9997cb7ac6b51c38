"""Lists what the config inside an exported file may build.

A file is data and must never run code. But mmengine imports and calls
whatever a ``type`` names, by any dotted path; a scope makes it import
``<scope>.registry``, even from the working folder; and mmcv evaluates the type
of an NMS as Python. So every entry of a file's config is compared with these
lists before anything is built. Every further format has to pass
:func:`check_allowed` too.
"""

import math
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.registry import Registry

from mmgor.registry import MODELS, TASK_UTILS, TRANSFORMS

_SCOPE = 'mmdet'
_SCOPES = (_SCOPE, 'mmcv', 'mmengine')
# Key (or pattern) -> package of mmdet, all of whose classes may be its type.
_PACKAGES = {
    'bbox_head': (MODELS, 'mmdet.models.dense_heads.'),
    '*loss*': (MODELS, 'mmdet.models.losses.'),
    'batch_augments': (MODELS, 'mmdet.models.data_preprocessors.'),
    '*_coder': (TASK_UTILS, 'mmdet.models.task_modules.coders.'),
    '*_generator': (TASK_UTILS, 'mmdet.models.task_modules.prior_generators.'),
}
# Key -> names that may be its type.
_NAMES = {
    'data_preprocessor': (MODELS, 'DetDataPreprocessor'),
    'conv_cfg': (MODELS, 'Conv Conv1d Conv2d ConvWS ConvAWS'),
    'cls_predictor_cfg': (MODELS, 'Linear NormedLinear NormedConv2d'),
    'norm_cfg': (MODELS, 'BN BN1d BN2d SyncBN EvalBN GN LN IN IN1d IN2d'),
    'act_cfg': (
        MODELS,
        'ReLU LeakyReLU PReLU ReLU6 ELU GELU SiLU Swish Mish Sigmoid '
        'Tanh HSigmoid HSwish Clip Clamp',
    ),
    'pipeline': (
        TRANSFORMS,
        'InferencerLoader LoadAnnotations Resize FixScaleResize '
        'FixShapeResize Pad RandomFlip RandomCenterCropPad Normalize '
        'PackDetInputs',
    ),
}
_NMS = ('nms', 'soft_nms')
# Keys that read files, import modules or load weights. An export leaves them
# out.
_REFUSED = (
    *('backend_args', 'file_client_args', 'init_cfg', 'pretrained'),
    *('checkpoint', 'custom_imports', 'default_scope', 'scope'),
)
# Key (or pattern) -> largest number. Ranges of FCOS and numbers of boxes have
# no limit: no memory is allocated for them.
_MOST = {
    **dict.fromkeys(('*_range', '*_ranges', 'test_cfg'), math.inf),
    **dict.fromkeys(('mean', 'std'), math.inf),
    'pipeline': 2**14,
    'scale_factor': 32,
    '*convs': 64,
    'data_preprocessor': 2**14,
    'bbox_head': 2**16,
}
_MOST_STEPS = 64
_MOST_WEIGHTS = 2**28
_MOST_PRIORS = 2**10


def check_allowed(scope: Any, model: dict, pipeline: list) -> None:
    """Make sure that a file's config builds only what the lists allow.

    Args:
        scope (str | None): ``default_scope`` of the config.
        model (dict): ``bbox_head``, ``data_preprocessor`` and ``test_cfg``.
        pipeline (list[dict]): Steps of the test pipeline.

    Raises:
        ValueError: If it would build anything else, or has a number that is
            too large; the message names the entry.
    """
    if scope not in (None, _SCOPE):
        raise ValueError(
            f'default_scope is {scope!r}; expected {_SCOPE!r}. Run a file of '
            'another scope with its config: python tools/test.py CONFIG FILE'
        )
    if len(pipeline) > _MOST_STEPS:
        raise ValueError(
            f'pipeline has {len(pipeline)} steps; expected up to {_MOST_STEPS}'
        )
    for registry in (MODELS, TASK_UTILS, TRANSFORMS):
        registry.import_from_location()  # modules of mmdet only
    for key in ('bbox_head', 'data_preprocessor', 'test_cfg'):
        _check(model.get(key), [key])
    _check(pipeline, ['pipeline'])


def check_buildable(model: dict) -> None:
    """Make sure that a head and a preprocessor can be built and are of a sane
    size.

    The head is built on the meta device: its weights take no memory.

    Args:
        model (dict): See :func:`check_allowed`, which has to be called first.

    Raises:
        ValueError: If the head has more than 2^28 weights or 1024 priors per
            location.
        Exception: Any that a constructor raises if its arguments do not fit.
    """
    if model.get('data_preprocessor') is not None:
        MODELS.build(model['data_preprocessor'])
    with torch.device('meta'):
        head = MODELS.build({**model['bbox_head'], 'test_cfg': None})
    weights = sum(value.numel() for value in head.state_dict().values())
    generator = getattr(head, 'prior_generator', None)
    priors = max([0, *getattr(generator, 'num_base_priors', [])])
    if weights > _MOST_WEIGHTS or priors > _MOST_PRIORS:
        raise ValueError(
            f'bbox_head has {weights} weights and {priors} priors per '
            f'location; expected up to {_MOST_WEIGHTS} and {_MOST_PRIORS}'
        )


def _check(value: Any, keys: list[str]) -> None:
    """Check one entry and all below it; ``keys`` lead to it."""
    if isinstance(value, dict):
        _check_keys(value, keys)
        if 'type' in value:
            _check_type(value['type'], keys)
        for key, entry in value.items():
            _check(entry, [*keys, key])
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _check(entry, keys)
    elif isinstance(value, (int, float)):
        _check_number(value, keys)


def _check_keys(entries: dict, keys: list[str]) -> None:
    for key, value in entries.items():
        if key == '_scope_' and value == _SCOPE:
            continue
        if key.startswith('_') or (key in _REFUSED and value is not None):
            raise ValueError(
                f'{".".join([*keys, key])} is {value!r:.100}; expected a '
                'file without this entry'
            )


def _check_type(name: Any, keys: list[str]) -> None:
    if not _may_be(name, keys[-1]):
        raise ValueError(
            f'{".".join(keys)}.type is {name!r:.100}; expected a registered '
            'name of mmdet that fits there. Run a file with a class of your '
            'own with its config: python tools/test.py CONFIG FILE'
        )


def _may_be(name: Any, key: str) -> bool:
    if not isinstance(name, str):
        return False
    if key == 'nms':  # in no registry
        return name in _NMS
    if key in _NAMES:
        registry, names = _NAMES[key]
        return _registered_as(name, registry) in names.split()
    for pattern, (registry, package) in _PACKAGES.items():
        if fnmatchcase(key, pattern):
            known = _known(registry).get(_registered_as(name, registry))
            return getattr(known, '__module__', '').startswith(package)
    return False


def _registered_as(name: str, registry: Registry) -> str:
    """The registered name that mmengine finds for a name; '' if none.

    A name may have a scope ('mmdet.Resize') or be the dotted path of a class,
    as in new-style configs. No module is imported.
    """
    known = _known(registry)
    scope, _, rest = name.partition('.')
    module, _, last = name.rpartition('.')
    if name in known:
        return name
    if scope in _SCOPES and rest in known:
        return rest
    found = getattr(sys.modules.get(module), last, None)
    return last if found is not None and known.get(last) is found else ''


def _known(registry: Registry) -> dict[str, Any]:
    """All names in a registry and its parents, and their classes."""
    known: dict[str, Any] = {}
    for level in _levels(registry):
        known = {**level.module_dict, **known}
    return known


def _levels(registry: Registry | None) -> Iterator[Registry]:
    while registry is not None:
        yield registry
        registry = registry.parent


def _check_number(value: float, keys: list[str]) -> None:
    for key in reversed(keys):
        for pattern, most in _MOST.items():
            if fnmatchcase(key, pattern):
                if abs(value) <= most or isinstance(value, bool):
                    return
                raise ValueError(
                    f'{".".join(keys)} is {value!r:.100}; expected up to '
                    f'{most}'
                )
