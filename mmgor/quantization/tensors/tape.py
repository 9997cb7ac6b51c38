"""Records which layers and operations of a module read which tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .operations import PASSED, SAME, Kind, changed, kind_of, operands


@dataclass
class Step:
    """A call of an operation, or of a layer.

    Attributes:
        kind (Kind | None): None for a layer.
        name (str): Path of the layer, or of the module whose code calls the
            operation.
        reads (list[int]): Numbers of the tensors that it reads.
        makes (list[int]): Numbers of the tensors that it makes.
        decodes (bool): Whether it reads what prediction layers made.
    """

    kind: Kind | None
    name: str
    reads: list[int]
    makes: list[int]
    decodes: bool = False


@dataclass
class Tape:
    """What one forward pass has shown.

    Attributes:
        steps (list[Step]): Calls in their order.
        given (list[int]): Tensors that the module was called with.
        returned (list[int]): Tensors that it returned.
        same (list[tuple[int, int]]): Pairs of tensors with equal values: one
            is the other in another shape.
        passed (list[tuple[int, int]]): Pairs of what a batch norm or dropout
            reads and makes.
        uncovered (list[str]): Operations that read or make tensors in float,
            as ``<module path>: <function>``.
    """

    steps: list[Step] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    same: list[tuple[int, int]] = field(default_factory=list)
    passed: list[tuple[int, int]] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)


def record(
    module: nn.Module,
    layers: dict[str, nn.Module],
    predictions: set[str],
    arguments: dict[str, Any],
) -> tuple[Tape, Any]:
    """Run a module once and record the pass.

    Args:
        module (nn.Module): Gets hooks, so give a copy.
        layers (dict[str, nn.Module]): Path -> layer of ``module``, for the
            layers whose operations do not count.
        predictions (set[str]): Paths of the layers that predict. What follows
            them decodes and stays in float.
        arguments (dict[str, Any]): Arguments of ``module.forward``.

    Returns:
        tuple[Tape, Any]: The tape, and what the module returned.
    """
    tape = Tape()
    recorder = _Recorder(tape, predictions)
    for name, child in module.named_modules():
        if child is not module:
            child.register_forward_pre_hook(partial(recorder.enter, name))
            child.register_forward_hook(partial(recorder.leave, name))
    for name, layer in layers.items():
        layer.register_forward_pre_hook(recorder.before, prepend=True)
        layer.register_forward_hook(partial(recorder.after, name))
    tape.given = recorder.numbers(arguments)
    with recorder:
        output = module(**arguments)
    tape.returned = recorder.numbers(output)
    return tape, output


class _Recorder(TorchFunctionMode):
    """Numbers the tensors and writes the tape."""

    def __init__(self, tape: Tape, predictions: set[str]) -> None:
        super().__init__()
        self._tape = tape
        self._predictions = predictions
        self._numbers: dict[int, int] = {}
        # Python may give the id of a deleted tensor to another one.
        self._kept: list[Tensor] = []
        self._decoded: set[int] = set()
        self._path = ['']
        self._inside = 0
        self._inputs: list[list[int]] = []

    def numbers(self, values: Any) -> list[int]:
        """The numbers of all float tensors in nested values."""
        return [
            self._number(leaf)
            for leaf in tree_leaves(values)
            if isinstance(leaf, Tensor) and leaf.is_floating_point()
        ]

    def _number(self, tensor: Tensor) -> int:
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self._kept)
            self._kept.append(tensor)
        return self._numbers[id(tensor)]

    def _new_numbers(self, values: Any) -> list[int]:
        """Numbers for what a call made, also if it changed a tensor."""
        leaves = [x for x in tree_leaves(values) if isinstance(x, Tensor)]
        for leaf in leaves:
            self._numbers.pop(id(leaf), None)
        return self.numbers(leaves)

    def enter(self, name: str, *_: Any) -> None:
        self._path.append(name)

    def leave(self, name: str, *_: Any) -> None:
        self._path.pop()

    def before(self, _: nn.Module, inputs: tuple) -> None:
        if not self._inside:
            self._inputs.append(self.numbers(inputs[:1]))
        self._inside += 1

    def after(self, name: str, _: nn.Module, __: Any, output: Any) -> None:
        self._inside -= 1
        if self._inside:
            return
        reads = self._inputs.pop()
        self._write(None, name, reads, self._new_numbers(output))
        if name in self._predictions:
            self._decoded.update(self._tape.steps[-1].makes)

    def _write(
        self, kind: Kind | None, name: str, reads: list[int], makes: list[int]
    ) -> None:
        decodes = bool(self._decoded.intersection(reads))
        if decodes:
            self._decoded.update(makes)
        self._tape.steps.append(Step(kind, name, reads, makes, decodes))

    def __torch_function__(
        self,
        function: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return function(*args, **kwargs)
        kind = kind_of(function, args, kwargs)
        if kind is not None:
            reads = self.numbers(operands(kind, args, kwargs))
            result = function(*args, **kwargs)
            makes = self._new_numbers(result)
            self._write(kind, self._path[-1], reads, makes)
            return result
        known = map(self._known, tree_leaves((args, kwargs)))
        reads = [number for number in known if number is not None]
        result = function(*args, **kwargs)
        made = changed(function, args, result)
        made = result if made is None else made
        if reads and isinstance(made, Tensor) and made.is_floating_point():
            self._pass(function, reads, made)
        return result

    def _known(self, value: Any) -> int | None:
        found = isinstance(value, Tensor) and id(value) in self._numbers
        return self._numbers[id(value)] if found else None

    def _pass(
        self, function: Callable, reads: list[int], made: Tensor
    ) -> None:
        """Note a function that rounds nothing."""
        (number,) = self._new_numbers(made)
        if self._decoded.intersection(reads):
            self._decoded.add(number)
            return
        name = function.__name__
        if name not in PASSED:
            self._tape.uncovered.append(f'{self._path[-1]}: {name}')
        else:
            pairs = self._tape.same if name in SAME else self._tape.passed
            pairs.append((reads[0], number))
