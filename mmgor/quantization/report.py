"""The table of layers: bits, kind of input, parameters and packed bytes."""

import json
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmgor.io.atomic_write import write_text
from mmgor.io.checkpoint import is_deployed
from mmgor.quantization.layers.quant_layers import QuantLayerMixin
from mmgor.quantization.layers.weights import (
    own_parameters,
    weighted_layers,
    weights_of,
)
from mmgor.quantization.tensors.grids import GivenQuantizer
from mmgor.quantization.tensors.plan import ATTRIBUTE

FLOAT_BITS = 32
# Float buffers that a packed file holds.
_BUFFERS = ('running_mean', 'running_var', 'weight_gamma', 'weight_beta')


def layer_table(model: nn.Module) -> dict[str, Any]:
    """Bits, parameters and packed bytes of every layer with weights.

    Bytes are those in the packed file. Integer weights take their bits,
    rounded up to whole bytes per layer, and 4 bytes per weight scale.
    Everything that stays in float takes 4 bytes per number: biases, batch
    norm, other layers, and weights that a layer standardises before it rounds
    them. Scales and offsets of activations take 4 bytes each.

    Args:
        model (nn.Module): Any model. Modules that only training needs
            (:data:`mmgor.io.checkpoint.TRAINING_ONLY_PREFIXES`) are left out.

    Returns:
        dict[str, Any]: ``layers``, a list with a row per layer, and
        ``total``: parameters, packed bytes and bytes in float32 of the model.
    """
    rows = [
        _row(name, layer)
        for name, layer in weighted_layers(model).items()
        if is_deployed(name)
    ]
    in_rows = sum(row['params'] for row in rows)
    every = sum(
        p.numel()
        for name, p in model.named_parameters()
        if is_deployed(name) and '_quantizer.' not in name
    )
    buffers = sum(
        b.numel()
        for name, b in model.named_buffers()
        if is_deployed(name) and name.endswith(_BUFFERS)
    )
    tensors = sum(
        _ranges(module)
        for name, module in model.named_modules()
        if f'.{ATTRIBUTE}.' in f'.{name}' and is_deployed(name)
    )
    rest = every - in_rows + buffers + tensors
    total = dict(
        params=every,
        bytes=sum(row['bytes'] for row in rows) + 4 * rest,
        float_bytes=4 * (every + buffers),
    )
    return dict(layers=rows, total=total)


def _row(name: str, layer: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict(
        name=name,
        type=type(layer).__name__,
        shape=list(max(weights_of(layer), key=Tensor.numel).shape),
        params=sum(parameter.numel() for parameter in own_parameters(layer)),
    )
    if not isinstance(layer, QuantLayerMixin):
        return dict(
            row,
            w_bits=FLOAT_BITS,
            a_bits=FLOAT_BITS,
            input='float',
            input_scales=0,
            bytes=4 * row['params'],
        )
    w_quantizer, a_quantizer = layer.weight_quantizer, layer.input_quantizer
    count = layer.weight.numel() if layer.rounds_weight else 0
    packed = ceil(count * w_quantizer.bits / 8)
    ranges = _ranges(a_quantizer) if layer.owns_input_quantizer else 0
    scales = w_quantizer.num_scales + ranges
    return dict(
        row,
        w_bits=w_quantizer.bits,
        a_bits=a_quantizer.bits,
        input=_input_kind(a_quantizer),
        input_scales=a_quantizer.num_scales,
        bytes=packed + 4 * (row['params'] - count + scales),
    )


def _ranges(quantizer: Any) -> int:
    """Number of scales, and of the offsets or extremes that it may have."""
    return sum(
        value.numel()
        for value in quantizer.state_dict().values()
        if value.is_floating_point()
    )


def _input_kind(quantizer: Any) -> str:
    if isinstance(quantizer, GivenQuantizer):
        return 'as it comes'
    if not quantizer.calibrated:
        return 'uncalibrated'
    if quantizer.asymmetric:
        return 'affine'
    return 'signed' if quantizer.signed else 'unsigned'


def format_table(table: dict[str, Any]) -> str:
    """The table as aligned text: one line per layer and one for the total."""
    lines = [
        f'{"layer":44s} {"type":18s} {"weight":18s} {"W":>3s} {"A":>3s} '
        f'{"input":12s} {"scales":>6s} {"params":>10s} {"bytes":>10s}'
    ]
    for row in table['layers']:
        shape = 'x'.join(str(n) for n in row['shape'])
        lines.append(
            f'{row["name"]:44s} {row["type"]:18s} {shape:18s} '
            f'{row["w_bits"]:3d} {row["a_bits"]:3d} {row["input"]:12s} '
            f'{row["input_scales"]:6d} {row["params"]:10d} '
            f'{row["bytes"]:10d}'
        )
    total = table['total']
    lines.append(
        f'total: {total["params"]} parameters, {total["bytes"] / 1e6:.3f} MB '
        f'packed, {total["float_bytes"] / 1e6:.3f} MB in float32'
    )
    return '\n'.join(lines)


def save_table(table: dict[str, Any], path: Path) -> None:
    """Write the table to a JSON file."""
    write_text(path, json.dumps(table, indent=1) + '\n')
