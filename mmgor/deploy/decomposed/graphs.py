"""Reads and changes the graph of an exported program."""

from collections.abc import Callable
from typing import Any

import torch

# These imports register operators: quantized_decomposed, mmgor.
import torch.ao.quantization.fx._decomposed
from torch import Tensor
from torch.fx import GraphModule, Node

import mmgor.deploy.export.onnx_ops  # noqa: F401
from mmgor.deploy.export.deform_conv import traceable_deform_convs

#: The operators of a frozen network.
ROUND = torch.ops.mmgor.quantize_dequantize.default
WEIGHT = torch.ops.mmgor.dequantize.default
#: The operators of a lowered network.
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
#: A batch norm in evaluation mode.
NORM = torch.ops.aten._native_batch_norm_legit_no_training.default
_DETECTOR = 'detector.'
_CONSTANT = 'constant_'


def is_call(node: Any, *targets: Callable) -> bool:
    """Whether a node calls one of these functions."""
    return (
        isinstance(node, Node)
        and node.op == 'call_function'
        and node.target in targets
    )


def arguments(node: Node, required: int, *defaults: Any) -> tuple:
    """The arguments of a call, those left out with their defaults.

    Args:
        node (Node): The call.
        required (int): Number of arguments that have no default.
        *defaults: The defaults of the others.
    """
    return (*node.args, *defaults[len(node.args) - required :])


def layer_of(node: Node) -> str:
    """Path of the innermost module that a node came from, in the detector;
    '' if it is not known."""
    stack = node.meta.get('nn_module_stack') or {}
    path = next(reversed([str(path) for path, _ in stack.values()]), '')
    return path.removeprefix(_DETECTOR)


def constant(module: GraphModule, node: Node) -> Tensor:
    """The tensor of a ``get_attr`` node."""
    owner, _, name = str(node.target).rpartition('.')
    found: Tensor = getattr(module.get_submodule(owner), name)
    return found.detach()


def add_constant(module: GraphModule, value: Tensor, before: Node) -> Node:
    """Add a constant to a graph.

    Args:
        module (GraphModule): Gets the tensor as a buffer.
        value (Tensor): The constant.
        before (Node): The new node is placed before this one.

    Returns:
        Node: A ``get_attr`` node.
    """
    count = 0
    while hasattr(module, f'{_CONSTANT}{count}'):
        count += 1
    name = f'{_CONSTANT}{count}'
    module.register_buffer(name, value)
    with module.graph.inserting_before(before):
        return module.graph.get_attr(name)


def add_call(
    module: GraphModule, target: Callable, args: tuple, like: Node
) -> Node:
    """Add a call before another node, as part of the same layer.

    Args:
        module (GraphModule): Changed in place.
        target (Callable): The function.
        args (tuple): Its arguments.
        like (Node): The new node is placed before it and gets its layer.

    Returns:
        Node: The new node.
    """
    with module.graph.inserting_before(like):
        node = module.graph.call_function(target, args)
    node.meta['nn_module_stack'] = like.meta.get('nn_module_stack', {})
    return node


def drop_unused(module: GraphModule) -> None:
    """Remove the nodes and constants that nothing reads.

    Args:
        module (GraphModule): Changed in place.
    """
    for node in list(module.graph.nodes):
        # A check of the inputs' shapes, which torch.export makes again.
        if node.op == 'call_module' and not node.users:
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    read = {node.target for node in module.graph.nodes}
    for name, _ in list(module.named_buffers(recurse=False)):
        if name not in read:
            delattr(module, name)
    module.graph.lint()
    module.recompile()


def export(module: torch.nn.Module, images: Tensor) -> Any:
    """Trace a network without operators that work in place.

    Deformable convolutions are calls of ``mmgor::deform_conv2d``.

    Args:
        module (nn.Module): Takes ``images``.
        images (Tensor): Of the shape that the program will take.

    Returns:
        torch.export.ExportedProgram: The program.
    """
    with traceable_deform_convs():
        program = torch.export.export(module, (images,))
    return program.run_decompositions({})
