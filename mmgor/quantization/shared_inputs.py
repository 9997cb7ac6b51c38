"""Layers that read one tensor, and one rounding of it for all of them.

Runtimes round a tensor once if all its readers agree on the grid: OpenVINO
and NNCF call it unified scales. Quantizers that learn apart round it once a
reader.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.training_mode import evaluating

from .calibration import quantized_layers


@torch.no_grad()
def input_groups(model: nn.Module, run: Callable[[], Any]) -> list[list[str]]:
    """Layers whose input quantizers read the same tensors and could be one.

    The model runs in evaluation mode, so that nothing in it moves.

    Args:
        model (nn.Module): With calibrated quantized layers.
        run (Callable): Runs the model once.

    Returns:
        list[list[str]]: Paths of quantized layers, two or more a group. Their
        input quantizers are of one kind, size and integer range and saw the
        same tensors in the same order: in every call of a layer that a head
        calls once a level. None of them is frozen.
    """
    quantizers = {
        name: layer.input_quantizer
        for name, layer in quantized_layers(model).items()
        if layer.weight.requires_grad
    }
    with evaluating(model), _recorded(quantizers) as seen:
        run()
    groups: dict[tuple, list[str]] = {}
    for name, tensors in seen.items():
        quantizer = quantizers[name]
        key = (
            # The version: what a layer in between changed in place is another.
            tuple((id(tensor), version) for tensor, version in tensors),
            type(quantizer),
            quantizer.num_scales,
            quantizer.channels,
            int(quantizer.qmin),
            int(quantizer.qmax),
        )
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


@contextmanager
def _recorded(
    quantizers: dict[str, BaseQuantizer],
) -> Iterator[dict[str, list[tuple[Tensor, int]]]]:
    """Path -> tensors that come in, with their versions at that time.

    The tensors are kept: an id may come again after its owner went.
    """
    seen: dict[str, list[tuple[Tensor, int]]] = {}

    def look_for(name: str) -> Callable:
        def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
            entry = inputs[0], inputs[0]._version
            seen.setdefault(name, []).append(entry)

        return look

    handles = [
        quantizer.register_forward_pre_hook(look_for(name))
        for name, quantizer in quantizers.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def share_ranges(quantizers: Sequence[BaseQuantizer]) -> None:
    """Give all the mean of their ranges: of LSQ's steps the geometric one,
    of all else that is learned or averaged the arithmetic one.

    Args:
        quantizers (Sequence[BaseQuantizer]): Of one class and size.
    """
    states = [quantizer.state_dict() for quantizer in quantizers]
    for key, first in states[0].items():
        if first.is_floating_point():
            mean = torch.stack([state[key] for state in states]).mean(0)
            for state in states:
                state[key].copy_(mean)
