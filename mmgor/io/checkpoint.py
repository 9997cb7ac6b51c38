"""Checks on the state dicts of checkpoints.

A state dict that fits only in part, has NaN in it or is damaged is refused
with an error, where mmengine would load what fits and only warn.
"""

import math
import re
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

#: Prefixes of state-dict keys that only training needs.
TRAINING_ONLY_PREFIXES = ('kd_heads.', 'gor_weighting.')
#: What to do if a checkpoint to resume does not fit.
RESUME_HINT = (
    'Resume with the config that wrote the file, or start from its weights '
    'with load_from=<file>.'
)
_SHOWN = 5
# A model may have these prefixes where the file has none: DDP around a part
# of the model, and mmdet's semi-supervised detectors, which hold two of them.
_WRAPPERS = re.compile(r'\bmodule\.|^(student|teacher)\.')
#: Largest step size or range of a quantizer. No weight or input of a network
#: that trains needs a larger one.
LARGEST_STEP = 1e8
# Smallest step size. It is far below 1 / LARGEST_STEP, since channels whose
# weights are almost 0 have tiny steps.
_SMALLEST_STEP = math.exp(-40)
_BOUNDS = f'{_SMALLEST_STEP:.0e} to {LARGEST_STEP:.0e}'
_DENSE = torch.contiguous_format
# Weights may take this many times the stored bytes, and a few more: the levels
# of a head share their weights, and so do the layers of a decoder.
_MOST_SHARED = 16
_SMALL = 2**20


def check_any_match(
    module: nn.Module, state_dict: dict, prefix: str, name: str
) -> None:
    """Make sure that a file has at least one weight that fits ``module``.

    mmengine loads with ``strict=False`` and only warns, so a wrong file would
    leave random weights. Shapes are compared, too: a checkpoint of a wider
    model has all the names, but not one matching shape.

    Args:
        module (nn.Module): The module to be loaded.
        state_dict (dict): Keys to tensors.
        prefix (str): Prefix of the module's keys in ``state_dict``.
        name (str): Name of the module for the error message.

    Raises:
        RuntimeError: If no weight matches in key and shape.
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
        f'the checkpoint matches nothing of the {name}: expected weights such '
        f'as {dict(list(own.items())[:_SHOWN])}, got '
        f'{ {key: got[key] for key in named[:_SHOWN]} }. Give the checkpoint '
        'of this architecture; keys of a wrapper (module., student.) must be '
        'stripped.'
    )


def check_resume(module: nn.Module, state_dict: dict) -> None:
    """Make sure that a checkpoint has exactly the weights of a model.

    Args:
        module (nn.Module): The model to be resumed.
        state_dict (dict): State dict of the checkpoint.

    Raises:
        RuntimeError: If a key is missing or unexpected, or a shape differs.
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
    """Whether a state-dict key or a module's path belongs to the student
    itself, rather than to what only training needs.

    Example:
        >>> is_deployed('kd_heads.neck.losses.0.weight')
        False
    """
    return not name.startswith(TRAINING_ONLY_PREFIXES)


def strip_training_keys(state_dict: dict) -> dict:
    """The state dict without KD heads and loss weighting."""
    return {
        key: value for key, value in state_dict.items() if is_deployed(key)
    }


def non_finite_keys(state_dict: dict) -> list[str]:
    """Keys of the tensors with NaN or infinity, in their order."""
    return [
        key
        for key, value in state_dict.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and not _is_finite(value)
    ]


def _is_finite(value: Tensor) -> bool:
    # NaN and infinity spread to the sum, which takes a tenth of the time. The
    # sum of finite numbers may overflow, too.
    return bool(value.sum().isfinite() or value.isfinite().all())


def check_dense(state_dict: dict, owner: str) -> None:
    """Make sure that tensors are not far larger than their file.

    With a stride of 0, a single stored number makes a tensor of any size, and
    copying it would fill the memory.

    Args:
        state_dict (dict): Keys to tensors; other values are ignored.
        owner (str): Name of the state dict for the error message.

    Raises:
        ValueError: If a tensor is sparse or on the meta device, or if all
            tensors together are far larger than their memory.
    """
    tensors = {k: v for k, v in state_dict.items() if isinstance(v, Tensor)}
    stored = {}
    for key, value in tensors.items():
        if value.layout != torch.strided or value.is_meta:
            raise ValueError(
                f'{owner}: {key} is a tensor of {value.layout} on '
                f'{value.device}; expected a dense one with its values.'
            )
        storage = value.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
    sizes = {k: v.numel() * v.element_size() for k, v in tensors.items()}
    held, wanted = sum(stored.values()), sum(sizes.values())
    if wanted > _MOST_SHARED * held + _SMALL:
        key = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f'{owner}: {held} bytes are stored for weights of {wanted} bytes, '
            f'such as {key} of shape {tuple(tensors[key].shape)} and stride '
            f'{tensors[key].stride()}; expected tensors with all their '
            'values, as tools/train.py writes them.'
        )


def check_sound(own: dict, state_dict: dict, owner: str) -> None:
    """Make sure that no number in a state dict would break a training.

    Args:
        own (dict): State dict of the model that it is loaded into. A tensor
            that is not finite there, such as a constant mask, need not be
            finite in the file.
        state_dict (dict): Keys to tensors; other values are ignored.
        owner (str): Name of the file for the error message.

    Raises:
        ValueError: If a tensor has NaN or infinity, a running variance is
            negative, or a quantizer's step size or range is above
            :data:`LARGEST_STEP` or far too small.
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
        (absurd, f'step sizes outside of {_BOUNDS} or larger ranges'),
    ):
        if keys:
            raise ValueError(
                f'the {owner} has {fault} in {len(keys)} tensors: '
                f'{keys[:_SHOWN]}; expected finite weights and '
                'statistics, and step sizes that suit weights and inputs. '
                'Give a checkpoint from before training diverged.'
            )


def _is_absurd(key: str, value: Tensor) -> bool:
    """Whether a step size or range of a quantizer has an impossible size."""
    if '_quantizer.' not in key or not value.is_floating_point():
        return False
    if key.endswith('log_scale'):
        low, high = math.log(_SMALLEST_STEP), math.log(LARGEST_STEP)
        return bool(((value < low) | (value > high)).any())
    return bool((value.abs() > LARGEST_STEP).any())


def flatten(nested: Any, prefix: str = '') -> dict[str, Any]:
    """Values of nested dicts and lists by their path.

    Example:
        >>> flatten(dict(state={0: dict(step=7)}))
        {'state.0.step': 7}
    """
    if isinstance(nested, (list, tuple)):
        nested = dict(enumerate(nested))
    if not isinstance(nested, dict):
        return {prefix: nested}
    leaves = {}
    for key, value in nested.items():
        leaves.update(
            flatten(value, f'{prefix}.{key}' if prefix else f'{key}')
        )
    return leaves


def weights_checksum(state_dict: dict) -> str:
    """SHA-256 over the names, types, shapes and bytes of deployed weights.

    Args:
        state_dict (dict): Keys to tensors of a student. KD heads and loss
            weighting do not count, nor does the order of the keys.

    Returns:
        str: 64 hexadecimal digits.

    Raises:
        ValueError: See :func:`check_dense`.
    """
    check_dense(state_dict, 'weights')
    checksum = sha256()
    for key, value in sorted(strip_training_keys(state_dict).items()):
        checksum.update(f'{key} {value.dtype} {tuple(value.shape)} '.encode())
        # A strided tensor has no view as bytes.
        dense = value.detach().cpu().clone(memory_format=_DENSE)
        checksum.update(dense.reshape(-1).view(torch.uint8).numpy())
    return checksum.hexdigest()
