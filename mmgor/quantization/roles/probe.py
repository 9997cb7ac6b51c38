"""Runs a module on zeros and records which layers the data went through.

A copy of the module runs, with its children in evaluation mode, so the module
and the random states do not change. Autograd's graph tells which layer a
tensor comes from: the nodes that belong to layers' outputs are known, and a
walk back from the tensor stops at the nearest of them.
"""

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from mmgor.quantization.convert import call_layers, find_layers
from mmgor.quantization.layers.weights import weighted_layers
from mmgor.trial_run import random_states_kept

# Stands for the module's input where a layer's path is expected.
_INPUT = '<input>'
# Nodes that only change the shape of a tensor.
_SHAPING = {
    f'{name}Backward0'
    for name in ('View', 'UnsafeView', 'Permute', 'Transpose', 'Unsqueeze')
}


@dataclass
class Probe:
    """What one forward pass has shown.

    Attributes:
        calls (Counter[str]): Path of a layer -> number of its calls.
        first (list[str]): Layers that the input reaches through no other
            layer. If there was an error, the last of them may have raised it.
        last (set[str]): Layers from which an output comes through no other
            layer, without those in ``passed_on``.
        passed_on (set[str]): Layers whose output is returned and also read by
            another layer. As a rule, these are features.
        error (Exception, optional): The error that ended the forward pass.
    """

    calls: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    last: set[str] = field(default_factory=set)
    passed_on: set[str] = field(default_factory=set)
    error: Exception | None = None


def probe(
    module: nn.Module, training: bool, *args: Any, **kwargs: Any
) -> Probe:
    """Run a copy of a module with all its children in evaluation mode.

    Args:
        module (nn.Module): Module to run. It is not changed.
        training (bool): Training flag of the copy itself, without its
            children.
        *args: Arguments of its ``forward``: tensors, also in tuples, lists
            and dicts, and anything else.
        **kwargs: Keyword arguments of its ``forward``.

    Returns:
        Probe: Everything that ran, even if the run ended in an error.
    """
    result = Probe()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        random_states_kept(),
    ):
        try:
            copied = copy_to_run(module)
            copied.training = training
            graph = _Graph(copied, result)
            output = copied(*graph.enter(args), **graph.enter(kwargs))
            graph.leave(output)
        except Exception as error:  # the module may raise anything
            result.error = error
    return result


def copy_to_run(module: nn.Module) -> nn.Module:
    """A copy of a module in evaluation mode, which shares its weights but not
    its buffers."""
    # Tensors of weight_norm and the like, which each forward pass recomputes.
    computed = {
        id(value): value.detach()
        for child in module.modules()
        for value in vars(child).values()
        if isinstance(value, Tensor)
    }
    weights = {
        # A tensor from inference mode can't be part of autograd's graph.
        id(p): nn.Parameter(
            p.clone() if p.is_inference() else p.detach(), p.requires_grad
        )
        for p in module.parameters()
    }
    copied = copy.deepcopy(module, {**computed, **weights})
    call_layers(copied)
    # ``train(False)`` would have side effects: mmdet's backbones freeze
    # weights in it.
    for child in copied.modules():
        child.training = False
        # Checkpointing hides layers from autograd's graph.
        if 'with_cp' in vars(child):
            vars(child)['with_cp'] = False
    return copied


def kernel_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Path -> layer, for all layers that multiply by a matrix or a kernel.

    These are the layers that can be quantized, and those other layers with
    weights that are not norms and have no quantizable layer inside.
    """
    quantizable = find_layers(module)
    return {
        name: layer
        for name, layer in weighted_layers(module).items()
        if name in quantizable
        or not (isinstance(layer, nn.LayerNorm) or _around(name, quantizable))
    }


def _around(name: str, paths: Iterable[str]) -> bool:
    """Whether one of the paths lies inside the module called ``name``."""
    return any(not name or path.startswith(f'{name}.') for path in paths)


class _Graph:
    """Autograd's graph of one run: which node belongs to which layer."""

    def __init__(self, module: nn.Module, result: Probe) -> None:
        self.result = result
        self.writers: dict[Any, str] = {}
        self.read: set[Any] = set()
        for name, layer in kernel_layers(module).items():
            layer.register_forward_pre_hook(
                partial(self._before, name), with_kwargs=True
            )
            layer.register_forward_hook(partial(self._after, name))

    def enter(self, inputs: Any) -> Any:
        """Mark the inputs, so that the graph tells them from other tensors."""
        return tree_map_only(Tensor, partial(self._mark, _INPUT), inputs)

    def _mark(self, name: str, tensor: Tensor) -> Tensor:
        """Note that a tensor comes from the layer called ``name``."""
        if not tensor.is_floating_point():
            return tensor
        if name == _INPUT:
            tensor = tensor.detach().clone().requires_grad_()
        # A leaf can't be changed in place, and a view would lose its node.
        tensor = tensor.clone()
        if tensor.grad_fn is not None:
            self.writers[tensor.grad_fn] = name
        return tensor

    def _before(self, name: str, _: nn.Module, *inputs: Any) -> None:
        if _INPUT in self.sources(inputs) and name not in self.result.first:
            self.result.first.append(name)
        # The first input is the data; others may be offsets or masks.
        self.read.update(map(_origin, tensors(inputs)[:1]))

    def _after(self, name: str, _: nn.Module, __: Any, output: Any) -> Any:
        self.result.calls[name] += 1
        return tree_map_only(Tensor, partial(self._mark, name), output)

    def leave(self, output: Any) -> None:
        """Record the layers that the outputs come from."""
        for tensor in tensors(output):
            passed_on = _origin(tensor) in self.read
            found = self.result.passed_on if passed_on else self.result.last
            found |= self.sources(tensor) - {_INPUT}

    def sources(self, values: Any) -> set[str]:
        """The layers that values come from through no other layer."""
        found: set[str] = set()
        seen: set[Any] = set()
        todo = [tensor.grad_fn for tensor in tensors(values)]
        while todo:
            node = todo.pop()
            if node in self.writers:
                found.add(self.writers[node])
            elif node is not None and node not in seen:
                seen.add(node)
                todo += [before for before, _ in node.next_functions]
        return found


def _origin(tensor: Tensor) -> Any:
    """The node that made a tensor, before changes of its shape."""
    node = tensor.grad_fn
    while node is not None and node.name() in _SHAPING:
        node = node.next_functions[0][0]
    return node


def tensors(values: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
