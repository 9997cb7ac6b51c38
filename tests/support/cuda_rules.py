"""CUDA's rules: which devices may mix, and what the host waits for."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

CUDA = torch.device('cuda', 0)

aten = torch.ops.aten
# The result of these operators, or its size, must reach the host.
WAITING = {
    aten._local_scalar_dense.default: 'value',
    aten.equal.default: 'equal',
    aten.nonzero.default: 'nonzero',
    aten.masked_select.default: 'masked_select',
    aten._unique2.default: 'unique',
    aten.unique_dim.default: 'unique',
    aten.unique_consecutive.default: 'unique',
    aten.repeat_interleave.Tensor: 'repeat_interleave',
    aten.bincount.default: 'bincount',
}
HOST_RESULTS = {aten._local_scalar_dense.default, aten.equal.default}
READS = {aten.index.Tensor, aten._unsafe_index.Tensor}
WRITES = {
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# The value may be a scalar on the CPU, as in pointwise operators.
TAKES_CPU_SCALAR = {
    aten.fill_.Tensor,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
}


class CudaTensor(torch.Tensor):
    """A tensor that computes on the CPU and reports a CUDA device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> 'CudaTensor':
        assert type(held) is torch.Tensor
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device='cpu',
        )
        made.held = held
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f'CudaTensor({self.held})'

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        return CURRENT[-1].run(func, args, kwargs or {})


#: The virtual device of the current block.
CURRENT: list[Any] = []


def leaves(tree: Any) -> list[Any]:
    """The leaves of nested containers. torch's pytree does the same, but takes
    longer than the operators themselves."""
    found: list[Any] = []
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (list, tuple)):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
        else:
            found.append(part)
    return found


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if type(tree) in (list, tuple):
        return type(tree)(mapped(function, part) for part in tree)
    if isinstance(tree, dict):
        return {key: mapped(function, part) for key, part in tree.items()}
    return function(tree)


def held(tree: Any) -> Any:
    return mapped(lambda x: x.held if isinstance(x, CudaTensor) else x, tree)


def check_mixing(func: Any, args: tuple, tensors: list[Tensor]) -> None:
    """Raise RuntimeError if CUDA would refuse to mix these devices."""
    others = [x for x in tensors if not isinstance(x, CudaTensor)]
    if not others or func in (aten.copy_.default, aten._foreach_copy_.default):
        return
    if func in READS | WRITES:
        # Indices may be on the CPU, and so may a scalar that is written.
        value = args[2] if func in WRITES else args[0]
        sound = isinstance(args[0], CudaTensor) and (
            isinstance(value, CudaTensor) or value.dim() == 0
        )
    else:
        scalars = all(x.dim() == 0 for x in others)
        takes = torch.Tag.pointwise in func.tags or func in TAKES_CPU_SCALAR
        written = {
            id(value)
            for value, argument in zip(args, func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        }
        into = any(id(x) in written for x in others)
        sound = scalars and takes and not into
    if not sound:
        raise RuntimeError(
            'Expected all tensors to be on the same device, but found at '
            f'least two devices, cuda:0 and cpu! ({func})'
        )


def check_generators(arguments: list[Any]) -> None:
    if any(isinstance(x, torch.Generator) for x in arguments):
        raise RuntimeError(
            "Expected a 'cuda' device type for generator but found 'cpu'"
        )


def waits_for(func: Any, args: tuple) -> Iterator[str]:
    """Reasons for which the host waits for this operator."""
    if func in WAITING:
        yield WAITING[func]
    elif func is aten.copy_.default:
        if len(args) < 3 or not args[2]:
            yield from _copies([args[0]], [args[1]])
    elif func is aten._foreach_copy_.default:
        yield from _copies(args[0], args[1])
    elif func in READS | WRITES:
        index = [i for i in args[1] if i is not None]
        if not all(isinstance(i, CudaTensor) for i in index):
            yield 'index from the host'
        # Writing a scalar through a mask needs no size; all else does.
        scalar = func in WRITES and args[2].numel() == 1
        masks = (torch.bool, torch.uint8)
        if any(i.dtype in masks for i in index) and not scalar:
            yield 'mask'


def _copies(to: Any, sources: Any) -> Iterator[str]:
    for a, b in zip(to, sources):
        if isinstance(a, CudaTensor) != isinstance(b, CudaTensor):
            yield 'copy'
