"""Every layer with weights, whatever its class, and what a call costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module for every one that owns a weight of two or more axes.

    Embeddings, which are looked up and not multiplied with, are left out,
    and so are parameters of other names.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if not isinstance(module, nn.Embedding) and weights_of(module)
    }


def own_parameters(layer: nn.Module) -> list[nn.Parameter]:
    """Parameters of a layer itself, those of its parametrizations, too."""
    return [
        parameter
        for name, parameter in layer.named_parameters()
        if '.' not in name or name.startswith('parametrizations.')
    ]


def weights_of(layer: nn.Module) -> list[nn.Parameter]:
    """Those of :func:`own_parameters` that are weights: ``weight`` of most
    layers, ``in_proj_weight`` of ``nn.MultiheadAttention``."""
    return [
        parameter
        for name, parameter in layer.named_parameters()
        if parameter.dim() > 1
        and (name.startswith('parametrizations.weight.') or _is_own(name))
    ]


def _is_own(name: str) -> bool:
    return '.' not in name and 'weight' in name


def layer_macs(layer: Any, x: Any, y: Any) -> int:
    """Multiply-accumulates of one call.

    Each place of the output takes one for each number of the weights. A
    transposed convolution spreads every place of its input instead; what its
    padding cuts off afterwards counts, as it does in fvcore. Of
    ``nn.MultiheadAttention`` its projections count.

    Args:
        layer (nn.Module): One of :func:`weighted_layers`.
        x (Tensor): Its first input; unused where the output tells.
        y (Tensor | Sequence): Its output.
    """
    weights: list[Tensor] = [*weights_of(layer)]
    if isinstance(layer, nn.MultiheadAttention):
        places = y[0].numel() // layer.embed_dim
        weights.append(layer.out_proj.weight)
    else:
        spread = isinstance(layer, nn.ConvTranspose2d)
        leaves = tree_leaves(x if spread else y)
        numbers = sum(t.numel() for t in leaves if isinstance(t, Tensor))
        places = numbers // max(weights, key=Tensor.numel).shape[0]
    return places * sum(weight.numel() for weight in weights)


@contextmanager
def counting_macs(model: nn.Module) -> Iterator[dict[str, int]]:
    """Path -> multiply-accumulates of all calls in the ``with`` block."""
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
