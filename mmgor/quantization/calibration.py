"""Calibration: sets the ranges of all quantizers from a few batches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn

from mmgor.quantization.layers.quant_layers import QuantLayerMixin
from mmgor.quantization.quantizers.base import BaseQuantizer, weight_rows
from mmgor.quantization.quantizers.functional import MIN_SCALE
from mmgor.quantization.quantizers.observer import (
    PassThrough,
    RangeObserver,
    best_row_scales,
    best_scales,
)
from mmgor.quantization.tensors.plan import ATTRIBUTE
from mmgor.trial_run import trial_run


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """Path -> layer, for all quantized layers of ``model``."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, QuantLayerMixin)
    }


def tensor_quantizers(model: nn.Module) -> dict[str, BaseQuantizer]:
    """Path -> quantizer, for activations that no layer rounds
    (``tensors='all'``)."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BaseQuantizer)
        and name.split('.')[-2:-1] == [ATTRIBUTE]
    }


def uncalibrated_layers(model: nn.Module) -> list[str]:
    """Paths of the quantized layers, and of the quantizers of other tensors,
    that have no ranges yet."""
    layers = [
        name
        for name, layer in quantized_layers(model).items()
        if not (
            layer.weight_quantizer.calibrated
            and layer.input_quantizer.calibrated
        )
    ]
    others = tensor_quantizers(model).items()
    return layers + [name for name, q in others if not q.calibrated]


@torch.no_grad()
def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    run: Callable[[Any], Any],
    names: Iterable[str] | None = None,
    loss_weighted: bool = False,
) -> None:
    """Give every quantizer the range with the least squared error.

    The model runs in float and in training mode, so that inputs have the
    statistics that training will see. Each module's training flag, all buffers
    and the global random states are put back afterwards. In a distributed run,
    every rank must call this function with the same number of batches.

    An error only matters where the loss depends on the value. With
    ``loss_weighted``, the squared error of each activation is multiplied by
    the squared gradient of the loss, which stands for the second derivative
    (Li et al., "BRECQ", ICLR 2021). So a channel counts more if the next layer
    has large weights for it, and inputs far below zero do not count if SiLU
    follows.

    Args:
        model (nn.Module): Model with quantized layers.
        batches (Iterable): Arguments of ``run``.
        run (Callable): Runs the model on one batch. Its result is only used
            with ``loss_weighted``.
        names (Iterable[str], optional): What to calibrate, as
            :func:`uncalibrated_layers` names it; the others keep their
            ranges. Default: all.
        loss_weighted (bool): Weigh the errors of activations by the gradients
            of the loss, which ``run`` returns, a tensor of shape ().

    Raises:
        RuntimeError: If a layer did not run, or there was no batch.
        ValueError: If a weight or an input has NaN or infinity.
    """
    layers, others = quantized_layers(model), tensor_quantizers(model)
    chosen = list({**layers, **others} if names is None else names)
    with (
        trial_run(model),
        observing(layers, others, loss_weighted) as seen,
        torch.set_grad_enabled(loss_weighted),
    ):
        for batch in batches:
            loss = run(batch)
            if loss_weighted:
                _take_gradients(loss, seen)
        observers: dict[str, Any] = {
            name: quantizer.observer
            for name, quantizer in _inputs(chosen, layers, others).items()
        }
    _check_seen(observers, layers)
    for name in chosen:
        if name in layers:
            layer = layers[name]
            _fit_weight(layer.weight_quantizer, layer.channels_first())
    for name, quantizer in _inputs(chosen, layers, others).items():
        _fit_input(quantizer, observers[name])


def _inputs(
    names: Iterable[str],
    layers: dict[str, Any],
    others: dict[str, BaseQuantizer],
) -> dict[str, BaseQuantizer]:
    """Path -> quantizer, for the activation quantizers that have a range of
    their own. The input quantizer of several layers belongs to one of them."""
    found = {
        name: others[name] if name in others else layers[name].input_quantizer
        for name in names
        if name in others or layers[name].owns_input_quantizer
    }
    return {name: q for name, q in found.items() if q.has_range}


def _check_seen(
    observers: dict[str, RangeObserver], layers: dict[str, Any]
) -> None:
    """Raise on all ranks if a layer did not run on one of them, so that no
    rank waits for another."""
    seen = torch.tensor([int(o.seen) for o in observers.values()])
    dist.all_reduce(seen, 'min')
    silent = [name for name, ran in zip(observers, seen.tolist()) if not ran]
    if silent:
        # Override patterns are paths inside the wrapped module, and so is
        # layer_name.
        first = layers.get(silent[0])
        named = first.weight_quantizer.layer_name if first else silent[0]
        pattern = named.removesuffix('.weight')
        raise RuntimeError(
            'expected every quantized layer to run during calibration, but '
            f'these did not: {silent[:5]} ({len(silent)} in all). Keep them '
            f'in float with quant=dict(overrides={{"{pattern}": None}}).'
        )


def _fit_weight(quantizer: BaseQuantizer, weight: Tensor) -> None:
    quantizer.choose_range(signed=True)
    rows = weight_rows(weight, quantizer.per_channel).float()
    low, high = rows.aminmax(dim=1)
    scale = best_row_scales(rows, int(quantizer.qmin), int(quantizer.qmax))
    scale = _replace_zeros(scale, quantizer)
    quantizer.set_ranges(scale, torch.zeros_like(scale), low, high)


def _replace_zeros(scale: Tensor, quantizer: BaseQuantizer) -> Tensor:
    """Usable scales for channels and slots that only saw zeros.

    Their best scale is 0, and a scale of 0 could not represent values that
    appear during training. They get the median of the other scales, or a range
    of 1 if there is no other.
    """
    dead = scale <= 2 * MIN_SCALE
    others = scale[~dead]
    start = others.median() if others.numel() else 1 / quantizer.qmax
    return torch.where(dead, start, scale)


def _fit_input(quantizer: BaseQuantizer, observer: RangeObserver) -> None:
    observer.reduce()
    quantizer.choose_range(signed=bool((observer.low < 0).any()))
    scale, offset = best_scales(
        observer.rows(),
        observer.low,
        observer.high,
        int(quantizer.qmin),
        int(quantizer.qmax),
        quantizer.asymmetric,
        observer.importance(),
    )
    found = scale, offset, observer.low, observer.high
    # The search ran on the CPU.
    scale, *rest = (x.to(quantizer.qmax.device) for x in found)
    quantizer.set_ranges(_replace_zeros(scale, quantizer), *rest)


def _take_gradients(loss: Tensor, observers: list[RangeObserver]) -> None:
    followed = [x for o in observers for x, *_ in o.followed]
    gradients: list[Tensor | None] = list(
        torch.autograd.grad(loss, followed, allow_unused=True)
    )
    for observer in observers:
        count = len(observer.followed)
        observer.take_gradients(gradients[:count])
        del gradients[:count]


@contextmanager
def observing(
    layers: dict[str, Any], others: dict[str, BaseQuantizer], follow: bool
) -> Iterator[list[RangeObserver]]:
    """Let activation quantizers observe, and weight quantizers pass weights
    on. Gives the observers."""
    weights = [layer.weight_quantizer for layer in layers.values()]
    inputs = [layer.input_quantizer for layer in layers.values()]
    inputs += others.values()
    for quantizer in weights:
        quantizer.observer = PassThrough()
    for quantizer in inputs:
        quantizer.observer = (
            RangeObserver(quantizer.num_scales, quantizer.channels, follow)
            if quantizer.has_range
            else PassThrough()
        )
        quantizer.reset_slot()
    observers = [quantizer.observer for quantizer in dict.fromkeys(inputs)]
    try:
        yield [o for o in observers if isinstance(o, RangeObserver)]
    finally:
        for quantizer in [*weights, *inputs]:
            quantizer.observer = None
            quantizer.reset_slot()
