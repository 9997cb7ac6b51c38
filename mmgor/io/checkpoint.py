"""Checks on checkpoints: nothing may load silently in part."""

import math
import re
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

#: State-dict prefixes that only training needs.
TRAINING_ONLY_PREFIXES = ('kd_heads.', 'gor_weighting.')
#: What to do about a resume that does not fit.
RESUME_HINT = (
    'Resume with the config that wrote the file, or start from its weights '
    'with load_from=<file>.'
)
_SHOWN = 5
#: Names in a state dict that a file need not have: DDP around a part of the
#: model, and the two detectors of mmdet's semi-supervised ones.
_WRAPPERS = re.compile(r'\bmodule\.|^(student|teacher)\.')
#: A step size of e^40 or e^-40 is of no weight and of no input.
_LARGEST_LOG = 40
_DENSE = torch.contiguous_format
# Layers share weights: a head's by its levels, a decoder's by its layers.
_MOST_SHARED = 16
_SMALL = 2**20


def check_any_match(
    module: nn.Module, state_dict: dict, prefix: str, what: str
) -> None:
    """Make sure that a file has at least one weight that fits ``module``.

    mmengine loads with ``strict=False`` and only warns, so a wrong file would
    leave random weights. A file of another width has every name and not one
    matching shape.

    Args:
        module (nn.Module): What is being loaded.
        state_dict (dict): Keys to tensors.
        prefix (str): Where ``module`` sits in ``state_dict``.
        what (str): Its name for the message.

    Raises:
        RuntimeError: If no key and shape match.
    """
    own = {
        prefix + key: tuple(value.shape)
        for key, value in module.state_dict().items()
        if value.dim() > 1 and '_quantizer.' not in key
    }
    got = {k: tuple(getattr(v, 'shape', ())) for k, v in state_dict.items()}
    if not own or any(
        got.get(key) == shape or got.get(_WRAPPERS.sub('', key)) == shape
        for key, shape in own.items()
    ):
        return
    named = [key for key in own if key in got] or list(got)
    raise RuntimeError(
        f'the checkpoint matches nothing of the {what}: expected weights such '
        f'as {dict(list(own.items())[:_SHOWN])}, got '
        f'{ {key: got[key] for key in named[:_SHOWN]} }. Give the checkpoint '
        'of this architecture; keys of a wrapper (module., student.) must be '
        'stripped.'
    )


def check_resume(module: nn.Module, state_dict: dict) -> None:
    """Make sure that a file is this very model's.

    Args:
        module (nn.Module): The model to be resumed.
        state_dict (dict): From the checkpoint.

    Raises:
        RuntimeError: If a key is missing, unexpected or of another shape.
    """
    own = {
        key: tuple(value.shape) for key, value in module.state_dict().items()
    }
    missing = [key for key in own if key not in state_dict]
    unexpected = [key for key in state_dict if key not in own]
    shapes = [
        f'{key}: {tuple(state_dict[key].shape)} instead of {shape}'
        for key, shape in own.items()
        if key in state_dict and tuple(state_dict[key].shape) != shape
    ]
    if not (missing or unexpected or shapes):
        return
    parts = [
        f'{len(keys)} {name} ({", ".join(keys[:_SHOWN])})'
        for name, keys in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('of other shape', shapes),
        )
        if keys
    ]
    raise RuntimeError(
        'resume from a file of another config: expected exactly the keys of '
        f'this model, got {"; ".join(parts)}. {RESUME_HINT}'
    )


def is_deployed(name: str) -> bool:
    """Whether a state-dict key, or the path of a module, is of the student
    itself and not of what only training needs.

    Example:
        >>> is_deployed('kd_heads.neck.losses.0.weight')
        False
    """
    return not name.startswith(TRAINING_ONLY_PREFIXES)


def strip_training_keys(state_dict: dict) -> dict:
    """The state dict without KD heads and weighting."""
    return {
        key: value for key, value in state_dict.items() if is_deployed(key)
    }


def non_finite_keys(state_dict: dict) -> list[str]:
    """Keys of the tensors that have NaN or infinity, in order."""
    return [
        key
        for key, value in state_dict.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and not value.isfinite().all()
    ]


def check_dense(state_dict: dict, what: str) -> None:
    """Make sure that tensors can be copied: a stride of 0 makes an array of
    any size of a single number.

    Args:
        state_dict (dict): Keys to tensors; what is none is passed over.
        what (str): Whose they are, for the message.

    Raises:
        ValueError: If one is sparse or has no memory, or all together are
            far larger than their memory.
    """
    tensors = {k: v for k, v in state_dict.items() if isinstance(v, Tensor)}
    stored = {}
    for key, value in tensors.items():
        if value.layout != torch.strided or value.is_meta:
            raise ValueError(
                f'{what}: {key} is a tensor of {value.layout} on '
                f'{value.device}; expected a dense one with its values.'
            )
        storage = value.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
    sizes = {k: v.numel() * v.element_size() for k, v in tensors.items()}
    held, wanted = sum(stored.values()), sum(sizes.values())
    if wanted > _MOST_SHARED * held + _SMALL:
        key = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f'{what}: {held} bytes are stored for weights of {wanted} bytes, '
            f'such as {key} of shape {tuple(tensors[key].shape)} and stride '
            f'{tensors[key].stride()}; expected tensors with all their '
            'values, as tools/train.py writes them.'
        )


def check_sound(own: dict, state_dict: dict, what: str) -> None:
    """Make sure that nothing in a file would break a training at once.

    Args:
        own (dict): State dict of what it is loaded into. A constant mask may
            hold infinity there and then in the file.
        state_dict (dict): Keys to tensors of the file.
        what (str): Its name for the message.

    Raises:
        ValueError: If a weight, a running mean or any other tensor has NaN or
            infinity, a running variance is negative, or a quantizer's step
            size or range is absurd.
    """
    bad = [
        key
        for key in non_finite_keys(state_dict)
        if key not in own or own[key].isfinite().all()
    ]
    tensors = {k: v for k, v in state_dict.items() if isinstance(v, Tensor)}
    absurd = [k for k, v in tensors.items() if _is_absurd(k, v)]
    negative = [
        key
        for key, value in tensors.items()
        if key.endswith('running_var') and (value < 0).any()
    ]
    for keys, fault in (
        (bad, 'NaN or infinity'),
        (negative, 'negative variances'),
        (absurd, f'step sizes or ranges beyond e^{_LARGEST_LOG}'),
    ):
        if keys:
            raise ValueError(
                f'the {what} has {fault} in {len(keys)} tensors: '
                f'{keys[:_SHOWN]}; expected finite weights and '
                'statistics, and step sizes of the size of weights and '
                'inputs. Give a checkpoint from before training diverged.'
            )


def _is_absurd(key: str, value: Tensor) -> bool:
    """Whether a quantizer's step size or range has an impossible size."""
    if '_quantizer.' not in key or not value.is_floating_point():
        return False
    is_log = key.endswith('log_scale')
    most = _LARGEST_LOG if is_log else math.exp(_LARGEST_LOG)
    return bool((value.abs() > most).any())


def flat(nested: Any, prefix: str = '') -> dict[str, Any]:
    """What nested dicts and lists hold, by keys such as 'state.0.exp_avg'."""
    if isinstance(nested, (list, tuple)):
        nested = dict(enumerate(nested))
    if not isinstance(nested, dict):
        return {prefix: nested}
    leaves = {}
    for key, value in nested.items():
        leaves.update(flat(value, f'{prefix}.{key}' if prefix else f'{key}'))
    return leaves


def weights_digest(state_dict: dict) -> str:
    """SHA-256 over names, types, shapes and bytes of what is deployed.

    Args:
        state_dict (dict): Keys to tensors, of a student.

    Returns:
        str: 64 hexadecimal digits, whatever the order of the keys.

    Raises:
        ValueError: See :func:`check_dense`.
    """
    check_dense(state_dict, 'weights')
    digest = sha256()
    for key, value in sorted(strip_training_keys(state_dict).items()):
        digest.update(f'{key} {value.dtype} {tuple(value.shape)} '.encode())
        # A copy: bytes can not be seen through a stride.
        dense = value.detach().cpu().clone(memory_format=_DENSE)
        digest.update(dense.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
