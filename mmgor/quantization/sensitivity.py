"""How much the loss grows if a weight or an input has few bits.

The Fisher information stands for the second derivative of the loss: rounding
changes a tensor by e, and the loss by about 1/2 sum E[g^2] e^2, with g the
gradient for one image (FIT: Zandonati et al., "FIT: A Metric for Model
Sensitivity", ICLR 2023, arXiv 2210.08502). One backward pass per batch gives
this for all layers and all bit widths. Tensors count as independent, so the
figures add up.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.quantization.quantizers import functional
from mmgor.quantization.quantizers.base import (
    MAX_BITS,
    MIN_BITS,
    BaseQuantizer,
    weight_rows,
)
from mmgor.quantization.quantizers.observer import (
    RangeObserver,
    WeightGradient,
    best_row_scales,
    best_scales,
)
from mmgor.trial_run import trial_run

from .calibration import observing, quantized_layers, tensor_quantizers

BITS = tuple(range(MIN_BITS, MAX_BITS + 1))
_SIDES = dict(w_bits='the weight', a_bits='the input')


@dataclass(frozen=True)
class Sensitivity:
    """What few bits of one tensor cost.

    Attributes:
        layer (str): Path of the layer.
        side (str): 'w_bits' for its weight, 'a_bits' for its input.
        count (int): Number of weights, or of input values per image.
        costs (dict[int, float]): Bits -> expected growth of the loss.
    """

    layer: str
    side: str
    count: int
    costs: dict[int, float]


def sensitivities(
    model: nn.Module,
    batches: Sequence[Any],
    loss: Callable[[Any], Tensor],
    batch_size: int,
) -> list[Sensitivity]:
    """The sensitivity of every weight, and of every input that a layer
    rounds by itself.

    The model runs in float. It is left as it was.

    Args:
        model (nn.Module): Model with quantized layers, calibrated or not.
        batches (Sequence): Arguments of ``loss``.
        loss (Callable): Gives the loss of a batch, its mean over images.
        batch_size (int): Images per batch.

    Raises:
        ValueError: If there is no batch or no quantized layer, or a gradient
            is not finite.
    """
    layers = quantized_layers(model)
    if not batches or not layers:
        raise ValueError(
            f'expected batches and quantized layers, got {len(batches)} '
            f'batches and {len(layers)} quantized layers.'
        )
    others = tensor_quantizers(model)
    weights = {name: WeightGradient() for name in layers}
    squares: dict[str, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(trial_run(model))
        seen = stack.enter_context(observing(layers, others, True))
        stack.enter_context(torch.enable_grad())
        for name, layer in layers.items():
            layer.weight_quantizer.observer = weights[name]
        for batch in batches:
            _add_squares(loss(batch), weights, squares, seen)
        observers = {
            name: layer.input_quantizer.observer
            for name, layer in layers.items()
            if layer.owns_input_quantizer and layer.input_quantizer.has_range
        }
    # The gradient of one image is batch_size times that of the mean loss.
    factor = 0.5 * batch_size / len(batches)
    images = batch_size * len(batches)
    found = []
    for name, layer in layers.items():
        if name in squares:
            costs = _weight_costs(layer, squares[name])
            found.append(_scaled(name, 'w_bits', costs, factor))
        if name in observers and any(observers[name].counts):
            observer = observers[name]
            costs = _input_costs(layer.input_quantizer, observer)
            count = sum(observer.counts) // images
            found.append(_scaled(name, 'a_bits', (count, costs[1]), factor))
    return found


def _add_squares(
    loss: Tensor,
    weights: dict[str, WeightGradient],
    squares: dict[str, Tensor],
    observers: Iterable[RangeObserver],
) -> None:
    ran = {n: w.added for n, w in weights.items() if w.added is not None}
    followed = [x for o in observers for x, *_ in o.followed]
    gradients = torch.autograd.grad(
        loss, [*ran.values(), *followed], allow_unused=True
    )
    for (name, added), gradient in zip(ran.items(), gradients):
        square = torch.zeros_like(added) if gradient is None else gradient**2
        squares[name] = squares.get(name, 0) + square
        weights[name].added = None
    rest = iter(gradients[len(ran) :])
    for observer in observers:
        observer.take_gradients([next(rest) for _ in observer.followed])


def _weight_costs(layer: Any, square: Tensor) -> tuple[int, dict[int, float]]:
    """Number of weights, and bits -> sum of squared errors times squared
    gradients."""
    quantizer: BaseQuantizer = layer.weight_quantizer
    rows = weight_rows(layer.channels_first().detach(), quantizer.per_channel)
    rows = rows.float()
    importance = weight_rows(square, quantizer.per_channel)
    costs = {}
    for bits in BITS:
        qmin, qmax = quantizer.integers(bits, True)
        scale = best_row_scales(rows, qmin, qmax)[:, None]
        low, high = rows.new_full((), qmin), rows.new_full((), qmax)
        error = functional.fake_quantize(rows, scale, None, low, high) - rows
        costs[bits] = float((error.square() * importance).sum())
    return rows.numel(), costs


def _input_costs(
    quantizer: BaseQuantizer, observer: RangeObserver
) -> tuple[int, dict[int, float]]:
    """Number of values seen, and bits -> sum over all of them."""
    rows = observer.rows()
    squares = [torch.cat(calls) for calls in observer.squares]
    shares = [n / max(1, len(row)) for n, row in zip(observer.counts, rows)]
    signed = bool((observer.low < 0).any())
    costs = {}
    for bits in BITS:
        qmin, qmax = quantizer.integers(bits, signed)
        found = best_scales(
            rows,
            observer.low,
            observer.high,
            qmin,
            qmax,
            quantizer.asymmetric,
        )
        low, high = torch.tensor(float(qmin)), torch.tensor(float(qmax))
        total = 0.0
        for row, square, share, scale, offset in zip(
            rows, squares, shares, *found
        ):
            rounded = functional.fake_quantize(row, scale, offset, low, high)
            error = (rounded - row).square() * square
            total += share * float(error.sum())
        costs[bits] = total
    return sum(observer.counts), costs


def _scaled(
    name: str, side: str, found: tuple[int, dict[int, float]], factor: float
) -> Sensitivity:
    count, costs = found
    if not all(map(isfinite, costs.values())):
        raise ValueError(
            f'the gradient of the loss for {_SIDES[side]} of {name} is not '
            'finite. Check the checkpoint and the images.'
        )
    scaled = {bits: factor * cost for bits, cost in costs.items()}
    return Sensitivity(name, side, count, scaled)
