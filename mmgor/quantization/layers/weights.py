"""Lists the layers that have weights and counts their operations."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module, for all modules that own a weight with two or more axes.

    Embeddings are left out, because they are looked up and not multiplied
    with. Parameters whose names do not contain "weight" do not count.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if not isinstance(module, nn.Embedding) and weights_of(module)
    }


def own_parameters(layer: nn.Module) -> list[nn.Parameter]:
    """Parameters of a layer itself, with those of its parametrizations."""
    return [
        parameter
        for name, parameter in layer.named_parameters()
        if '.' not in name or name.startswith('parametrizations.')
    ]


def weights_of(layer: nn.Module) -> list[nn.Parameter]:
    """The weights among :func:`own_parameters`.

    They are ``weight`` in most layers and ``in_proj_weight`` in
    ``nn.MultiheadAttention``.
    """
    return [
        parameter
        for name, parameter in layer.named_parameters()
        if parameter.dim() > 1
        and (name.startswith('parametrizations.weight.') or _is_own(name))
    ]


def _is_own(name: str) -> bool:
    return '.' not in name and 'weight' in name


def layer_macs(layer: Any, x: Any, y: Any) -> int:
    """Multiply-accumulates of one call of a layer.

    Every position of the output takes one multiply-accumulate per number in
    the weights. In a transposed convolution it is every position of the input;
    results that its padding cuts off count as well, as they do in fvcore. Of
    ``nn.MultiheadAttention``, only the projections count.

    Args:
        layer (nn.Module): A layer from :func:`weighted_layers`.
        x (Tensor): Its first input. Only transposed convolutions need it.
        y (Tensor | Sequence): Its output.
    """
    weights: list[Tensor] = [*weights_of(layer)]
    if isinstance(layer, nn.MultiheadAttention):
        positions = y[0].numel() // layer.embed_dim
        weights.append(layer.out_proj.weight)
    else:
        transposed = isinstance(layer, nn.ConvTranspose2d)
        leaves = tree_leaves(x if transposed else y)
        numbers = sum(t.numel() for t in leaves if isinstance(t, Tensor))
        positions = numbers // max(weights, key=Tensor.numel).shape[0]
    return positions * sum(weight.numel() for weight in weights)


@contextmanager
def counting_macs(model: nn.Module) -> Iterator[dict[str, int]]:
    """Path -> multiply-accumulates of all calls in the block."""
    layers = weighted_layers(model)
    macs = dict.fromkeys(layers, 0)

    def count(name: str, layer: nn.Module, inputs: tuple, output: Any) -> None:
        macs[name] += layer_macs(layer, inputs[0] if inputs else None, output)

    handles = [
        layer.register_forward_hook(partial(count, name))
        for name, layer in layers.items()
    ]
    try:
        yield macs
    finally:
        for handle in handles:
            handle.remove()
