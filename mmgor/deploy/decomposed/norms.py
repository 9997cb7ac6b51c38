"""Folds batch norms into integer weights in a graph of torch.export."""

import operator
from typing import Any

import torch
from torch.fx import GraphModule

from mmgor.deploy.export.graph.batch_norm_folding import fold_batch_norm

from .graphs import NORM, WEIGHT, add_call, add_constant, constant, is_call

_aten = torch.ops.aten
_CONVOLUTIONS = (_aten.conv1d.default, _aten.conv2d.default)


def fold_norms(module: GraphModule) -> int:
    """Fold every batch norm that is the only reader of a convolution with
    integer weights.

    The integers change their sign only; see :func:`.fold_batch_norm`.

    Args:
        module (GraphModule): From a frozen network. Changed in place.

    Returns:
        int: Number of folded batch norms.
    """
    found = [n for n in module.graph.nodes if is_call(n, NORM)]
    return sum(_fold(module, norm) for norm in found)


def _fold(module: GraphModule, norm: Any) -> bool:
    conv, *parameters, _, epsilon = norm.args
    if not (
        is_call(conv, *_CONVOLUTIONS)
        and is_call(conv.args[1], WEIGHT)
        and len(conv.users) == 1
    ):
        return False
    integers, scale = (constant(module, n) for n in conv.args[1].args)
    bias = conv.args[2] if len(conv.args) > 2 else None
    folded = fold_batch_norm(
        integers.numpy(),
        scale.numpy(),
        (
            torch.zeros(len(integers))
            if bias is None
            else constant(module, bias)
        ).numpy(),
        tuple(constant(module, part).numpy() for part in parameters),
        epsilon,
    )
    fresh = [add_constant(module, torch.from_numpy(a), conv) for a in folded]
    weight = add_call(module, WEIGHT, tuple(fresh[:2]), conv)
    conv.args = (conv.args[0], weight, fresh[2], *conv.args[3:])
    for reader in list(norm.users):
        assert is_call(reader, operator.getitem) and reader.args[1] == 0
        reader.replace_all_uses_with(conv)
        module.graph.erase_node(reader)
    module.graph.erase_node(norm)
    return True
