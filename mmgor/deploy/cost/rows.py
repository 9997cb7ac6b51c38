"""The cost of each layer of a detector as a row, and sums over rows."""

from dataclasses import dataclass
from math import prod
from typing import Any

from mmgor.quantization.report import FLOAT_BITS

#: Name of the last row: norms, activations, resizing and all else that is not
#: a layer with weights.
EVERYTHING_ELSE = '(everything else)'
#: MACs and output shape (without batch axis) of each call of a layer.
LayerCalls = list[tuple[int, tuple[int, ...]]]
# Entries of layer_table that a row copies unchanged.
_TABLE_KEYS = ('name', 'type', 'params', 'w_bits', 'a_bits', 'input', 'bytes')


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
        name (str): Path in the model.
        type (str): Class of the layer.
        shape (tuple[int, ...]): Shape of the weight.
        params (int): Number of values in weight and bias.
        w_bits (int): Bits of the weight; 32 is float.
        a_bits (int): Bits of the input (activation); 32 is float.
        input (str): Kind of the input that calibration found (see
            ``layer_table``).
        bytes (int): Size in the packed file.
        float_bytes (int): Size in float32.
        calls (int): Calls in one pass; 0 if the layer did not run.
        output (tuple[int, ...]): Shape of the first call's output, without
            the batch axis.
        macs (int): Multiply-accumulates per image, over all calls.
        seconds (float): Time of the float computation, over all calls.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    params: int
    w_bits: int
    a_bits: int
    input: str
    bytes: int
    float_bytes: int
    calls: int = 0
    output: tuple[int, ...] = ()
    macs: int = 0
    seconds: float = 0.0

    @property
    def bitops(self) -> int:
        """MACs x weight bits x input bits (Bayesian Bits,
        arXiv:2005.07093)."""
        return self.macs * self.w_bits * self.a_bits


@dataclass(frozen=True)
class CostTotals:
    """Sums over rows. ``weight_bits`` is the mean over all weights of the
    layers, or 0 if there are none."""

    params: int
    bytes: int
    float_bytes: int
    macs: int
    bitops: int
    float_bitops: int
    weight_bits: float
    seconds: float


def total_costs(rows: list[LayerCost]) -> CostTotals:
    """Sums over rows."""
    weights = [prod(row.shape) if row.shape else 0 for row in rows]
    bits = sum(n * row.w_bits for n, row in zip(weights, rows))
    macs = sum(row.macs for row in rows)
    return CostTotals(
        params=sum(row.params for row in rows),
        bytes=sum(row.bytes for row in rows),
        float_bytes=sum(row.float_bytes for row in rows),
        macs=macs,
        bitops=sum(row.bitops for row in rows),
        float_bitops=macs * FLOAT_BITS**2,
        weight_bits=bits / max(1, sum(weights)),
        seconds=sum(row.seconds for row in rows),
    )


def layer_row(
    entry: dict[str, Any],
    calls: LayerCalls,
    seconds: float,
) -> LayerCost:
    """The row of a layer, from ``layer_table`` and a measured pass.

    Args:
        entry (dict[str, Any]): Entry of the table's ``layers``.
        calls (LayerCalls): MACs and output shape of each call.
        seconds (float): Time of all calls.
    """
    return LayerCost(
        **{key: entry[key] for key in _TABLE_KEYS},
        shape=tuple(entry['shape']),
        float_bytes=4 * entry['params'],
        calls=len(calls),
        output=calls[0][1] if calls else (),
        macs=sum(macs for macs, _ in calls),
        seconds=seconds,
    )


def rest_row(
    rows: list[LayerCost], total: dict[str, int], seconds: float
) -> LayerCost:
    """The last row, :data:`.EVERYTHING_ELSE`: the rest of the totals.

    Args:
        rows (list[LayerCost]): Rows of all layers.
        total (dict[str, int]): ``total`` of ``layer_table``.
        seconds (float): Time outside of the layers.
    """
    listed = total_costs(rows)
    return LayerCost(
        name=EVERYTHING_ELSE,
        type='',
        shape=(),
        params=total['params'] - listed.params,
        w_bits=FLOAT_BITS,
        a_bits=FLOAT_BITS,
        input='float',
        bytes=total['bytes'] - listed.bytes,
        float_bytes=total['float_bytes'] - listed.float_bytes,
        seconds=seconds,
    )
