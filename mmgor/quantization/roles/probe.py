"""A run of a module on zeros, and which layers its data went through.

The run is of a copy, on which nothing is random and no batch norm counts, so
that the module and the random state stay as they are. What came from where is
read from autograd's graph: the nodes that layers wrote are known, and a walk
back from a tensor ends at the nearest of them.
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

from mmgor.quantization.convert import disable_efficient_bn, find_layers
from mmgor.quantization.layers.weights import weighted_layers
from mmgor.trial_run import random_states_kept

# The path of what goes into the module.
_INPUT = '<input>'
# Nodes that give the same numbers another shape.
_SHAPING = {
    f'{name}Backward0'
    for name in ('View', 'UnsafeView', 'Permute', 'Transpose', 'Unsqueeze')
}


@dataclass
class Probe:
    """What a run has shown.

    Attributes:
        calls (Counter[str]): Path of a layer -> how often it was called.
        first (list[str]): Layers that the input reaches through no other
            layer; the last one may be where an error came from.
        last (set[str]): Layers that an output comes from through no other
            layer, but for those in ``passed_on``.
        passed_on (set[str]): Those whose output is returned as it goes into
            another layer, too: features, as a rule.
        error (Exception, optional): What ended the run before its end.
    """

    calls: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    last: set[str] = field(default_factory=set)
    passed_on: set[str] = field(default_factory=set)
    error: Exception | None = None


def probe(
    module: nn.Module, training: bool, *args: Any, **kwargs: Any
) -> Probe:
    """Run a copy of a module, all that is in it in evaluation mode.

    Args:
        module (nn.Module): Stays as it is; so does the random state.
        training (bool): What the module itself takes its mode for.
        *args: What its ``forward`` takes: tensors, alone or in tuples, lists
            and dicts, and anything else.
        **kwargs: The same by name.

    Returns:
        Probe: Of all that ran, also if the run ended in an error.
    """
    result = Probe()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        random_states_kept(),
    ):
        try:
            copied = _copy(module)
            copied.training = training
            graph = _Graph(copied, result)
            output = copied(*graph.enter(args), **graph.enter(kwargs))
            graph.leave(output)
        except Exception as error:  # whatever the module may raise
            result.error = error
    return result


def _copy(module: nn.Module) -> nn.Module:
    """The same weights under other names; buffers are copied."""
    # What weight_norm and the like keep: computed anew in every forward.
    computed = {
        id(value): value.detach()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor)
    }
    weights = {
        # Made in inference mode, a tensor never gets a gradient's graph.
        id(p): nn.Parameter(
            p.clone() if p.is_inference() else p.detach(), p.requires_grad
        )
        for p in module.parameters()
    }
    copied = copy.deepcopy(module, {**computed, **weights})
    disable_efficient_bn(copied)
    # Not by ``train``, with which mmdet's backbones freeze their weights.
    for part in copied.modules():
        part.training = False
        # A checkpointed part hides its layers from autograd's graph.
        if 'with_cp' in vars(part):
            vars(part)['with_cp'] = False
    return copied


def kernel_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Path -> layer for all that multiply by a matrix or kernel of weights.

    Those that can be quantized, and those of other kinds that are no norms
    and have none of the former inside.
    """
    quantizable = find_layers(module)
    return {
        name: layer
        for name, layer in weighted_layers(module).items()
        if name in quantizable
        or not (isinstance(layer, nn.LayerNorm) or _around(name, quantizable))
    }


def _around(name: str, paths: Iterable[str]) -> bool:
    """Whether one of the paths lies inside the module of that name."""
    return any(not name or path.startswith(f'{name}.') for path in paths)


class _Graph:
    """Autograd's graph of a run, and which layer wrote which node."""

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
        """The inputs, told from all else in the graph."""
        return tree_map_only(Tensor, partial(self._mark, _INPUT), inputs)

    def _mark(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor that the name is known to have written."""
        if not tensor.is_floating_point():
            return tensor
        if name == _INPUT:
            tensor = tensor.detach().clone().requires_grad_()
        # A change in place of a leaf is refused, one of a view loses its node.
        tensor = tensor.clone()
        if tensor.grad_fn is not None:
            self.writers[tensor.grad_fn] = name
        return tensor

    def _before(self, name: str, _: nn.Module, *inputs: Any) -> None:
        if _INPUT in self.sources(inputs) and name not in self.result.first:
            self.result.first.append(name)
        # The data; what else comes in may be offsets or masks.
        self.read.update(map(_origin, tensors(inputs)[:1]))

    def _after(self, name: str, _: nn.Module, __: Any, output: Any) -> Any:
        self.result.calls[name] += 1
        return tree_map_only(Tensor, partial(self._mark, name), output)

    def leave(self, output: Any) -> None:
        """Note where the outputs come from."""
        for tensor in tensors(output):
            passed_on = _origin(tensor) in self.read
            found = self.result.passed_on if passed_on else self.result.last
            found |= self.sources(tensor) - {_INPUT}

    def sources(self, values: Any) -> set[str]:
        """What wrote the values, through no other layer."""
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
    """The node that wrote the numbers, whatever their shape is now."""
    node = tensor.grad_fn
    while node is not None and node.name() in _SHAPING:
        node = node.next_functions[0][0]
    return node


def tensors(values: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
