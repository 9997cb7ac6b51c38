"""The operations between layers whose operands are rounded.

torch tells a ``TorchFunctionMode`` about every function of torch that Python
code calls. The table here says what those functions mean for a grid. They are
found by name, because one function has several forms (``torch.add``,
``Tensor.add_``, ``x + y``).
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor


class Kind(Enum):
    """What an operation means for the grids of its operands and result."""

    #: Each operand has its own grid, and so has the result.
    SUM = 'sum'
    PRODUCT = 'product'
    #: All operands and the result have one grid.
    CONCAT = 'concat'
    #: The result has the grid of the operand: values are moved or chosen.
    MOVE = 'move'
    #: The same, but values are averaged, or added at borders, so that the
    #: result is rounded anew.
    POOL = 'pool'
    #: The operand has a grid; the result has another one.
    ACTIVATION = 'activation'
    #: The same; the result lies in [0, 1] and has the fixed grid.
    SIGMOID = 'sigmoid'
    #: x * sigmoid(x) in one function.
    SILU = 'silu'
    #: Runtimes fuse it into the operation before it.
    RELU = 'relu'


_NAMES = {
    Kind.SUM: 'add add_ __add__ __iadd__ __radd__ sub sub_ __sub__',
    Kind.PRODUCT: 'mul mul_ __mul__ __imul__ __rmul__ multiply',
    Kind.CONCAT: 'cat concat concatenate',
    Kind.MOVE: 'max_pool2d adaptive_max_pool2d __getitem__ chunk split',
    Kind.POOL: 'avg_pool2d adaptive_avg_pool2d mean pad',
    Kind.ACTIVATION: 'leaky_relu hardswish hardsigmoid mish gelu elu prelu '
    'tanh softplus softmax',
    Kind.SIGMOID: 'sigmoid sigmoid_',
    Kind.SILU: 'silu',
    Kind.RELU: 'relu relu_ relu6 hardtanh clamp clamp_ clip',
}
_KINDS = {n: kind for kind, names in _NAMES.items() for n in names.split()}
# A resize repeats values or averages them.
_NEAREST = {'nearest', 'nearest-exact'}
# The form that does not change its operand.
_OUT_OF_PLACE: dict[str, Callable] = {
    'add_': torch.add,
    '__iadd__': torch.add,
    'sub_': torch.sub,
    'mul_': torch.mul,
    '__imul__': torch.mul,
    'sigmoid_': torch.sigmoid,
    'relu_': torch.relu,
    'clamp_': torch.clamp,
}
#: Functions whose result has the values of the operand in another shape.
SAME = frozenset(
    """
    view reshape flatten unflatten permute transpose squeeze unsqueeze
    contiguous float half to type type_as clone detach expand alias view_as
    requires_grad_
    """.split()  # noqa: SIM905
)
#: Those whose result a runtime fuses with the operand.
PASSED = SAME | {'batch_norm', 'dropout', 'dropout2d'}
# Feature maps have four axes, tokens three.
_LEAST_AXES = 3


def kind_of(function: Callable, args: Sequence, kwargs: dict) -> Kind | None:
    """The kind of a call, or None if no operand is rounded.

    Sums and products with a number, a scale or another small tensor do not
    count: a runtime folds them into the step size.
    """
    name = getattr(function, '__name__', '')
    kind = _KINDS.get(name)
    if name == 'interpolate':
        nearest = kwargs.get('mode', 'nearest') in _NEAREST
        kind = Kind.MOVE if nearest else Kind.POOL
    if kind is None or not _are_maps(operands(kind, args, kwargs), kind):
        return None
    return kind


def _are_maps(found: list[Any], kind: Kind) -> bool:
    count = 2 if kind in (Kind.SUM, Kind.PRODUCT) else 1
    return len(found) >= count and all(
        isinstance(x, Tensor)
        and not isinstance(x, torch.nn.Parameter)
        and x.is_floating_point()
        and x.dim() >= _LEAST_AXES
        for x in found
    )


def operands(kind: Kind, args: Sequence, kwargs: dict) -> list[Any]:
    """The tensors that a call reads."""
    if kind is Kind.CONCAT:
        return list(args[0] if args else kwargs['tensors'])
    if kind in (Kind.SUM, Kind.PRODUCT):
        return [*args[:2], *(kwargs[k] for k in ('other',) if k in kwargs)]
    return [args[0] if args else kwargs['input']]


def call(
    function: Callable, kind: Kind, read: list[Tensor], args: Any, kwargs: Any
) -> Any:
    """Call a function on other operands, without changing them."""
    kwargs = dict(kwargs)
    if 'inplace' in kwargs:
        kwargs['inplace'] = False
    name = getattr(function, '__name__', '')
    function = _OUT_OF_PLACE.get(name, function)
    if kind is Kind.CONCAT:
        kwargs.pop('tensors', None)
        return function(read, *args[1:], **kwargs)
    if kind in (Kind.SUM, Kind.PRODUCT):
        kwargs.pop('other', None)
        return function(*read, *args[2:], **kwargs)
    kwargs.pop('input', None)
    return function(read[0], *args[1:], **kwargs)


def is_same(function: Callable) -> bool:
    """Whether the result has the values of the operand in another shape."""
    return getattr(function, '__name__', '') in SAME


def changed(function: Callable, args: Sequence, result: Any) -> Tensor | None:
    """The tensor that a call has changed in place, or None."""
    if getattr(function, '__name__', '') == '__setitem__':
        return args[0]
    in_place = args and result is args[0] and not is_same(function)
    return result if in_place and isinstance(result, Tensor) else None


def keeps_values(kind: Kind) -> bool:
    """Whether the result of values on a grid lies on that grid already."""
    return kind in (Kind.MOVE, Kind.CONCAT)
