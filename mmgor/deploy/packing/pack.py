"""Pack a quantized model into one file: n-bit weights, float32 for the rest.

:mod:`.file_format` has the layout of the file. Its manifest lists ``tensors``
of these kinds:

- ``weight``: integers of a quantized layer with ``bits`` bits each (see
  :mod:`.packing.bits`), of the given ``shape`` with output channels first.
  The entry has the ``quantizer`` and the ``qmax`` that they were rounded with,
  and under
  ``scale`` the name of another tensor. For LSQQuantizer that is the logarithm
  of the step size, for others the largest magnitude of the weight, which is
  ``qmax`` steps. ``transposed_groups`` is the number of groups of a transposed
  convolution, whose stock weight has its input channels first, and 0 for
  other layers.
- ``peak``: such a largest magnitude, which is not in the state dict.
- ``tensor``: a tensor of ``dtype`` and ``shape``, little-endian, in C order.
- ``integer``: a scalar of ``dtype`` with its ``value`` in the manifest.
- ``alias``: the same tensor as another one, whose name is in ``of``.
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmgor.deploy.export.frozen import check_calibrated, check_weights
from mmgor.io.atomic_write import writing
from mmgor.io.checkpoint import strip_training_keys
from mmgor.quantization import QuantConvTranspose2d
from mmgor.quantization.layers.quant_layers import (
    QuantLayerMixin,
    swap_channels,
)
from mmgor.quantization.quantizers.functional import weight_peak

from .bits import pack_bits, unpack_bits
from .file_format import read_file, write_file
from .manifest import DTYPES
from .weights import has_stored_step, restore_weight

_SHOWN = 5

Entry = tuple[dict[str, Any], bytes]


@torch.no_grad()
def pack_model(
    model: nn.Module, path: str | Path, meta: dict[str, Any]
) -> dict[str, int]:
    """Write the deployed part of a model, read it back and compare.

    The file gets its name only when it is complete and compared.

    Args:
        model (nn.Module): Has calibrated quantized layers. KD heads and loss
            weighting are left out.
        path (str | Path): The file to write; an old one is replaced.
        meta (dict): Facts that JSON can hold; ``classes`` are the class
            names.

    Returns:
        dict[str, int]: Sizes, see :func:`.file_format.write_file`.

    Raises:
        ValueError: If no layer is quantized, a quantized layer was never
            calibrated, or a tensor is not finite or cannot be stored.
        RuntimeError: If the tensors that were read back differ.
    """
    check_calibrated(model)
    with writing(path) as temporary:
        sizes = write_file(temporary, meta, _entries(model))
        _verify(model, read_packed(temporary)[0])
    return sizes


def read_packed(
    path: str | Path,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a packed file.

    Args:
        path (str | Path): File that :func:`pack_model` wrote.

    Returns:
        tuple[dict[str, Tensor], dict[str, Any]]: A state dict for the config
        of the packed model, and the manifest. Tensors are those of the
        checkpoint, except for quantized weights: their values differ, but
        quantize to the same integers.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a packed file, has a later format, or is cut
            off or damaged.
    """
    manifest, blocks = read_file(Path(path))
    entries = {entry['name']: entry for entry in manifest['tensors']}
    state_dict: dict[str, Tensor] = {}
    for name, entry in entries.items():
        kind = entry['kind']
        if kind == 'alias':
            state_dict[name] = state_dict[entry['of']]
        elif kind == 'weight':
            scale = entries[entry['scale']]
            state_dict[name] = _weight(entry, scale, blocks)
        elif kind == 'integer':
            dtype = getattr(torch, entry['dtype'])
            state_dict[name] = torch.tensor(entry['value'], dtype=dtype)
        elif kind == 'tensor':
            state_dict[name] = _tensor(entry, blocks)
    return state_dict, manifest


def _quantized_weights(model: nn.Module) -> dict[str, Any]:
    """Quantized layers by the key of their weight; a shared layer has several.

    Layers that round another tensor, computed from their weight, are left
    out: their weights are stored in float32.
    """
    return {
        f'{name}.weight': layer
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, QuantLayerMixin) and layer.rounds_weight
    }


def _entries(model: nn.Module) -> list[Entry]:
    """Manifest entries and bytes, in the order of the state dict."""
    layers = _quantized_weights(model)
    entries: list[Entry] = []
    seen: dict[tuple, str] = {}
    state_dict = strip_training_keys(model.state_dict())
    check_weights(state_dict)
    for name, value in state_dict.items():
        place = value.data_ptr(), value.shape, value.stride()
        first = seen.setdefault(place, name) if value.numel() else name
        if first != name:
            entries.append((dict(name=name, kind='alias', of=first), b''))
        elif name in layers:
            entries += _weight_entries(name, layers[name])
        else:
            entries.append(_tensor_entry(name, value))
    return entries


def _weight_entries(name: str, layer: Any) -> list[Entry]:
    quantizer = layer.weight_quantizer
    integers, grid = layer.weight_integers()
    layer_name = name.removesuffix('.weight')
    entry = dict(
        name=name,
        kind='weight',
        quantizer=type(quantizer).__name__,
        bits=quantizer.bits,
        qmax=grid.qmax,
        shape=list(integers.shape),
        transposed_groups=_transposed_groups(layer),
        scale=f'{layer_name}.weight_quantizer.log_scale',
    )
    block = pack_bits(integers.cpu().numpy(), quantizer.bits)
    if has_stored_step(quantizer):
        return [(entry, block)]
    peak = weight_peak(layer.channels_first(), quantizer.per_channel)
    entry['scale'] = f'{layer_name}.weight_peak'
    stored, peak_block = _tensor_entry(entry['scale'], peak.flatten())
    return [(entry, block), (dict(stored, kind='peak'), peak_block)]


def _transposed_groups(layer: Any) -> int:
    return layer.groups if isinstance(layer, QuantConvTranspose2d) else 0


def _tensor_entry(name: str, value: Tensor) -> Entry:
    dtype = str(value.dtype).removeprefix('torch.')
    if dtype not in DTYPES:
        raise ValueError(
            f'{name} has the dtype {dtype}; expected one of '
            f'{list(DTYPES)}. Type model.float() before packing.'
        )
    entry = dict(name=name, kind='tensor', dtype=dtype)
    if value.dim() == 0 and dtype in ('int32', 'int64'):
        return dict(entry, kind='integer', value=int(value)), b''
    block = value.cpu().numpy().astype(DTYPES[dtype]).tobytes()
    return dict(entry, shape=list(value.shape)), block


def _tensor(entry: dict[str, Any], blocks: dict[str, bytes]) -> Tensor:
    dtype = np.dtype(DTYPES[entry['dtype']])
    # Tensors without elements have no block.
    values = np.frombuffer(blocks.get(entry['name'], b''), dtype)
    native = values.reshape(entry['shape']).astype(dtype.newbyteorder('='))
    return torch.from_numpy(native)


def _weight(
    entry: dict[str, Any], scale: dict[str, Any], blocks: dict[str, bytes]
) -> Tensor:
    shape, groups = entry['shape'], entry['transposed_groups']
    flat = unpack_bits(blocks[entry['name']], entry['bits'], prod(shape))
    weight = restore_weight(
        entry['quantizer'],
        torch.from_numpy(flat).view(shape),
        _tensor(scale, blocks),
        entry['qmax'],
    )
    return swap_channels(weight, groups) if groups else weight


def _verify(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Make sure that quantized weights and all other tensors are the same."""
    layers = _quantized_weights(model)
    expected = strip_training_keys(model.state_dict())
    differing = [name for name in expected if name not in state_dict]
    for name in expected.keys() & state_dict.keys():
        want, got = expected[name], state_dict[name]
        if name in layers:
            quantizer = layers[name].weight_quantizer
            groups = _transposed_groups(layers[name])
            got = swap_channels(got, groups) if groups else got
            want = quantizer(layers[name].channels_first())
            got = quantizer(got.to(want.device))
        same = want.shape == got.shape and want.dtype == got.dtype
        if not (same and torch.equal(want, got.to(want.device))):
            differing.append(name)
    if differing:
        raise RuntimeError(
            f'{len(differing)} tensors differ when they are read back from '
            f'the packed file ({", ".join(sorted(differing)[:_SHOWN])}); '
            'nothing was written. This is a mistake in mmgor: please report '
            'it with the config.'
        )
