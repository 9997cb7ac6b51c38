"""What an exported file may have built. It is data, never code.

mmengine imports and calls whatever a ``type`` names, by any dotted path; a
scope imports ``<scope>.registry``, from the working folder, too; and mmcv
evaluates the type of an NMS as Python. So every entry of a file's config is
held against these lists before anything is built. Formats to come have to
pass :func:`check_allowed`, too.
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
# Under which key a type may be any class of a package of mmdet's.
_PACKAGES = {
    'bbox_head': (MODELS, 'mmdet.models.dense_heads.'),
    '*loss*': (MODELS, 'mmdet.models.losses.'),
    'batch_augments': (MODELS, 'mmdet.models.data_preprocessors.'),
    '*_coder': (TASK_UTILS, 'mmdet.models.task_modules.coders.'),
    '*_generator': (TASK_UTILS, 'mmdet.models.task_modules.prior_generators.'),
}
# ... and under which it is one of these names.
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
# They read files, import modules or load weights; export leaves them out.
_REFUSED = (
    *('backend_args', 'file_client_args', 'init_cfg', 'pretrained'),
    *('checkpoint', 'custom_imports', 'default_scope', 'scope'),
)
# Largest numbers, by key; FCOS's ranges and counts of boxes bound nothing.
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
    """Make sure that a file's config has nothing built but what is listed.

    Args:
        scope (str | None): Its ``default_scope``.
        model (dict): ``bbox_head``, ``data_preprocessor`` and ``test_cfg``.
        pipeline (list[dict]): Steps of its test pipeline.

    Raises:
        ValueError: If it has; names the entry.
    """
    if scope not in (None, _SCOPE):
        raise ValueError(
            f'default_scope is {scope!r}; expected {_SCOPE!r}. A config of '
            'another scope goes with its file: python tools/test.py CONFIG '
            'FILE'
        )
    if len(pipeline) > _MOST_STEPS:
        raise ValueError(f'pipeline has more than {_MOST_STEPS} steps')
    for registry in (MODELS, TASK_UTILS, TRANSFORMS):
        registry.import_from_location()  # mmdet's own, fixed by mmdet
    for key in ('bbox_head', 'data_preprocessor', 'test_cfg'):
        _check(model.get(key), [key])
    _check(pipeline, ['pipeline'])


def check_buildable(model: dict) -> None:
    """Make sure that what is allowed can be built, and is of a sane size.

    The head is built without memory for its weights.

    Args:
        model (dict): See :func:`check_allowed`, which is to be called first.

    Raises:
        ValueError: If the head has more than 2^28 weights or 1024 priors a
            place.
        Exception: Whatever comes of arguments that do not fit.
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
            f'bbox_head has {weights} weights and {priors} priors a place; '
            f'expected up to {_MOST_WEIGHTS} and {_MOST_PRIORS}'
        )


def _check(value: Any, place: list[str]) -> None:
    """One entry and all below it; ``place`` has the keys that lead there."""
    if isinstance(value, dict):
        _check_keys(value, place)
        if 'type' in value:
            _check_type(value['type'], place)
        for key, part in value.items():
            _check(part, [*place, key])
    elif isinstance(value, (list, tuple)):
        for part in value:
            _check(part, place)
    elif isinstance(value, (int, float)):
        _check_number(value, place)


def _check_keys(entries: dict, place: list[str]) -> None:
    for key, value in entries.items():
        if key == '_scope_' and value == _SCOPE:
            continue
        if key.startswith('_') or (key in _REFUSED and value is not None):
            raise ValueError(
                f'{".".join([*place, key])} is {value!r:.100}; a file must '
                'not say that'
            )


def _check_type(name: Any, place: list[str]) -> None:
    if not _may_be(name, place[-1]):
        raise ValueError(
            f'{".".join(place)}.type is {name!r:.100}; expected a registered '
            'name of mmdet that fits there. A file with a class of your own '
            'goes with its config: python tools/test.py CONFIG FILE'
        )


def _may_be(name: Any, key: str) -> bool:
    if not isinstance(name, str):
        return False
    if key == 'nms':  # of no registry
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
    """The registered name that mmengine takes a name for, '' for none; no
    module is imported.

    A name may have a scope ('mmdet.Resize') or be the path of a class, which
    is what a new-style config becomes when it is written.
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
    """All that a registry and the ones above it have."""
    known: dict[str, Any] = {}
    for level in _levels(registry):
        known = {**level.module_dict, **known}
    return known


def _levels(registry: Registry | None) -> Iterator[Registry]:
    while registry is not None:
        yield registry
        registry = registry.parent


def _check_number(value: float, place: list[str]) -> None:
    for key in reversed(place):
        for pattern, most in _MOST.items():
            if fnmatchcase(key, pattern):
                if abs(value) <= most or isinstance(value, bool):
                    return
                raise ValueError(
                    f'{".".join(place)} is {value!r:.100}; expected up to '
                    f'{most}'
                )
