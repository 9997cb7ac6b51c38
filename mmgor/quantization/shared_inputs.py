"""Finds layers that read the same tensor, so that it is rounded only once.

Runtimes round a tensor once if all layers that read it have the same scale;
OpenVINO and NNCF call this unified scales. With a scale of its own, each layer
would round the tensor again.
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
    """Groups of layers that read the same tensors and could share a quantizer.

    The model runs in evaluation mode, so its buffers do not change.

    Args:
        model (nn.Module): Model with calibrated quantized layers.
        run (Callable): Runs the model once.

    Returns:
        list[list[str]]: Paths of quantized layers, two or more per group. The
        input quantizers of a group have the same class, size and integer
        range, and got the same tensors in the same order (several tensors if
        a head calls the layer once per level). None of the layers is frozen.
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
            # An in-place change between two layers changes the version.
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
    """Path -> input tensors with their versions at that time.

    The tensors are kept, because Python may give the id of a deleted one to
    another tensor.
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
def share_ranges(groups: Sequence[Sequence[BaseQuantizer]]) -> None:
    """Give the quantizers of each group the mean of their ranges.

    LSQ's step sizes, which are stored as logarithms, get their geometric mean;
    everything else that is trained or averaged gets the arithmetic mean. All
    groups change at once: tensor by tensor it would take hundreds of kernels.

    Args:
        groups (Sequence[Sequence[BaseQuantizer]]): In a group, quantizers of
            the same class and size. They are changed in place.
    """
    by_size: dict[int, list[tuple[Tensor, ...]]] = {}
    for group in groups:
        states = [quantizer.state_dict(keep_vars=True) for quantizer in group]
        by_size.setdefault(len(group), []).extend(
            tuple(state[key] for state in states)
            for key, first in states[0].items()
            if first.is_floating_point()
        )
    for size, shared in by_size.items():
        members = [list(tensors) for tensors in zip(*shared)]
        total = members[0]
        for others in members[1:]:
            total = list(torch._foreach_add(total, others))
        mean = torch._foreach_div(total, size)
        for tensors in members:
            torch._foreach_copy_(tensors, mean)
