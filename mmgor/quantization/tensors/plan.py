"""Gives every tensor of a recorded pass one grid.

Tensors that must have the same grid form a group: the operands and the result
of a concatenation, and what a pooling or a resize reads and makes. A group
takes the input quantizer of the layers that read it, or a new one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .fusion import fused_steps
from .operations import Kind
from .tape import Step, Tape

#: Attribute of a wrapped module that holds the new quantizers.
ATTRIBUTE = 'tensor_quantizer'
_FIXED = 'sigmoid'
# Kinds whose operands and result are in one group.
_JOINING = (Kind.CONCAT, Kind.MOVE, Kind.POOL)


class Slot(NamedTuple):
    """A grid: the path of a quantizer in the module, and its slot."""

    path: str
    slot: int = 0


@dataclass
class PlannedStep:
    """What an operation rounds.

    Attributes:
        kind (Kind): Its kind.
        name (str): Path of the module whose code calls it.
        reads (list[Slot | None]): The grid of each operand; None if it is not
            rounded here.
        makes (Slot | None): The grid of the result, for operations that keep
            the grid of their operand.
        given (bool): Whether the operand was rounded by the module that the
            data comes from, and the result keeps its grid.
    """

    kind: Kind
    name: str
    reads: list[Slot | None]
    makes: Slot | None = None
    given: bool = False


@dataclass
class LayerBits:
    """What a plan has to know of a layer: input bits, and its slots."""

    bits: int
    slots: int = 1


@dataclass
class Plan:
    """Which grid each tensor of a module has.

    Attributes:
        steps (list[PlannedStep]): The operations, in the order of their calls.
        reads (dict[str, list[list[Slot]]]): Path of a layer -> the grids that
            its input is rounded to, per call: the one of the tensor, and the
            layer's own if that has fewer bits.
        shared (dict[str, str]): Path of a layer -> path of the layer whose
            input quantizer it takes.
        given (set[str]): Layers that take their input as it comes, since the
            module before has rounded it.
        outputs (dict[str, list[Slot]]): Path of a prediction layer -> the
            grid of its output, per call.
        returned (list[list[Slot]]): The grids that each returned tensor is
            rounded to; none if it comes rounded.
        new (dict[str, tuple[int, int]]): Name of a new quantizer -> its bits
            and slots.
        fixed (bool): Whether the fixed grid of sigmoids is needed.
        fused (list[str]): Paths of modules whose SiLU reads what no grid
            rounds, since the runtime computes it inside the layer before.
        uncovered (list[str]): Operations that stay in float.
    """

    steps: list[PlannedStep] = field(default_factory=list)
    reads: dict[str, list[list[Slot]]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    outputs: dict[str, list[Slot]] = field(default_factory=dict)
    returned: list[list[Slot]] = field(default_factory=list)
    new: dict[str, tuple[int, int]] = field(default_factory=dict)
    fixed: bool = False
    fused: list[str] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)


class _Groups:
    """Disjoint sets of anything that can be a dict key."""

    def __init__(self) -> None:
        self._parents: dict = {}

    def __getitem__(self, member: object) -> object:
        while member in self._parents:
            member = self._parents[member]
        return member

    def join(self, members: Iterable) -> None:
        roots = list(dict.fromkeys(self[member] for member in members))
        for root in roots[1:]:
            self._parents[root] = roots[0]


def make_plan(
    tape: Tape,
    layers: Mapping[str, LayerBits],
    given: bool,
    predictions: Mapping[str, int],
    tensor_bits: int,
    output_bits: int,
    fuse_silu: bool = False,
) -> Plan:
    """Plan the grids of a module.

    A group that layers read has the most bits that one of them has; layers
    of fewer bits round once more. A group that a sum, a product or an
    activation reads, too, has at least ``tensor_bits``: errors of a residual
    branch would add up from block to block. A group that no layer reads has
    ``tensor_bits``, or ``output_bits`` if it is returned.

    Args:
        tape (Tape): A pass of the module.
        layers (Mapping[str, LayerBits]): The quantized layers by path.
        given (bool): Whether the module before rounds what this one gets.
        predictions (Mapping[str, int]): Path of a prediction layer -> bits of
            its output. With predictions, the returned tensors are not
            rounded: what follows the prediction layers decodes.
        tensor_bits (int): Bits of tensors that operations read.
        output_bits (int): Bits of returned tensors that no layer of more bits
            reads.
        fuse_silu (bool): Whether the runtime computes SiLU inside the layer
            before, so that what it reads is not rounded.
    """
    return _Planner(
        tape,
        layers,
        given,
        predictions,
        tensor_bits,
        output_bits,
        fused_steps(tape) if fuse_silu else [],
    ).plan


class _Planner:
    def __init__(
        self,
        tape: Tape,
        layers: Mapping[str, LayerBits],
        given: bool,
        predictions: Mapping[str, int],
        tensor_bits: int,
        output_bits: int,
        fused: list[Step],
    ) -> None:
        self.plan = Plan(
            fused=list(dict.fromkeys(step.name for step in fused)),
            uncovered=list(dict.fromkeys(tape.uncovered)),
        )
        self._tape = tape
        self._layers = layers
        self._in_float = {id(step) for step in fused}
        self._groups = _Groups()
        self._given = set(tape.given) if given else set()
        self._fixed: set = set()
        self._calls: dict[str, list[int]] = {}
        self._join()
        # Root of a group -> layers and slots that read it.
        self._readers: dict[object, list[tuple[str, int]]] = {}
        self._assign_layers()
        returned = set() if predictions else set(tape.returned)
        self._bits = tensor_bits
        self._output_bits = output_bits
        self._returned = {self._groups[n] for n in returned}
        self._computed = {
            self._groups[n]
            for step in self._covered()
            if step.kind not in (*_JOINING, Kind.RELU)
            for n in step.reads
        }
        self._homes: dict[object, Slot] = {}
        self._plan_steps()
        self._plan_outputs(predictions)
        if not predictions:
            self.plan.returned = [
                self._plan_returned(n, f'output_{i}')
                for i, n in enumerate(tape.returned)
            ]

    def _is_given(self, number: int) -> bool:
        root = self._groups[number]
        return any(self._groups[n] == root for n in self._given)

    def _is_fixed(self, number: int) -> bool:
        root = self._groups[number]
        return any(self._groups[n] == root for n in self._fixed)

    def _join(self) -> None:
        for pair in self._tape.same:
            self._groups.join(pair)
        for step in self._covered():
            if step.kind is Kind.CONCAT:
                own = [n for n in step.reads if not self._is_given(n)]
                if not all(map(self._is_fixed, step.reads)):
                    # Other tensors do not fit the grid of a sigmoid.
                    own = [n for n in own if not self._is_fixed(n)]
                self._groups.join([*own, *step.makes])
            elif step.kind in _JOINING:
                self._groups.join([*step.reads, *step.makes])
            elif step.kind is Kind.SIGMOID:
                self._fixed.update(step.makes)
        for step in self._tape.steps:
            if step.kind is None and step.name in self._layers and step.reads:
                self._calls.setdefault(step.name, []).append(step.reads[0])
        self._join_relus()

    def _covered(self) -> list[Step]:
        return [
            step
            for step in self._tape.steps
            if step.kind
            and not step.decodes
            and id(step) not in self._in_float
        ]

    def _join_relus(self) -> None:
        """Keep one grid before and after a ReLU whose operand others read.

        Otherwise a runtime fuses it into the operation before, and only its
        result is rounded.
        """
        read = {
            self._groups[n]
            for step in self._covered()
            if step.kind is not Kind.RELU
            for n in step.reads
        }
        read |= {self._groups[n] for ns in self._calls.values() for n in ns}
        read |= {self._groups[n] for n in self._tape.returned}
        self._shared_relus = {
            id(step)
            for step in self._covered()
            if step.kind is Kind.RELU and self._groups[step.reads[0]] in read
        }
        for step in self._covered():
            if id(step) in self._shared_relus:
                self._groups.join([*step.reads, *step.makes])

    def _assign_layers(self) -> None:
        """Find the groups that each layer reads, and the shared quantizers."""
        owners: dict[tuple, str] = {}
        for name, numbers in self._calls.items():
            layer = self._layers[name]
            given = [self._is_given(n) for n in numbers]
            if all(given):
                self.plan.given.add(name)
                continue
            if not any(given):
                for slot in range(layer.slots):  # one grid for all its calls
                    calls = numbers[slot :: layer.slots]
                    own = [n for n in calls if not self._is_fixed(n)]
                    self._groups.join(own)
        for name, numbers in self._calls.items():
            if any(self._is_given(n) for n in numbers):
                continue
            layer = self._layers[name]
            roots = tuple(self._groups[n] for n in numbers[: layer.slots])
            owner = owners.setdefault((roots, layer.bits, layer.slots), name)
            if owner != name:
                self.plan.shared[name] = owner
                continue
            for slot, root in enumerate(roots):
                self._readers.setdefault(root, []).append((name, slot))

    def _home(self, number: int, name: str) -> Slot | None:
        """The grid of a tensor; ``name`` is for a new quantizer. None for
        tensors that come rounded."""
        if self._is_given(number):
            return None
        root = self._groups[number]
        if self._is_fixed(number):
            self.plan.fixed = True
            return Slot(f'{ATTRIBUTE}.{_FIXED}')
        if root not in self._homes:
            self._homes[root] = self._new_home(root, name)
        return self._homes[root]

    def _new_home(self, root: object, name: str) -> Slot:
        computed = root in self._computed
        readers = self._readers.get(root)
        if readers:
            path, slot = max(readers, key=lambda r: self._layers[r[0]].bits)
            if not computed or self._layers[path].bits >= self._bits:
                return Slot(f'{path}.input_quantizer', slot)
        returned = root in self._returned and not computed
        bits = self._output_bits if returned else self._bits
        return self._new(name, bits, 1)

    def _new(self, name: str, bits: int, slots: int) -> Slot:
        key, count = name.replace('.', '_'), 2
        while key in self.plan.new or key == _FIXED:
            key, count = f'{name.replace(".", "_")}_{count}', count + 1
        self.plan.new[key] = bits, slots
        return Slot(f'{ATTRIBUTE}.{key}')

    def _plan_steps(self) -> None:
        for step in self._tape.steps:
            if step.kind is None:
                self._plan_call(step)
                continue
            planned = PlannedStep(
                step.kind, step.name, [None] * len(step.reads)
            )
            self.plan.steps.append(planned)
            fused = (
                step.kind is Kind.RELU and id(step) not in self._shared_relus
            )
            if step.decodes or id(step) in self._in_float or fused:
                continue
            name = f'{step.name}_{step.kind.value}'.lstrip('_')
            if step.kind is Kind.CONCAT:
                home = self._home(step.makes[0], name)
                planned.reads = [home] * len(step.reads)
                planned.makes = home
                continue
            planned.reads = [self._home(n, name) for n in step.reads]
            if step.kind in (*_JOINING, Kind.RELU):
                planned.makes = planned.reads[0]
                planned.given = planned.makes is None
            if step.kind is Kind.SILU:
                self.plan.fixed = True
                planned.makes = Slot(f'{ATTRIBUTE}.{_FIXED}')

    def _plan_call(self, step: Step) -> None:
        if step.name not in self._layers or step.name in self.plan.given:
            return
        owner = self.plan.shared.get(step.name, step.name)
        reads = self.plan.reads.setdefault(step.name, [])
        own = Slot(
            f'{owner}.input_quantizer',
            len(reads) % self._layers[step.name].slots,
        )
        home = self._home(step.reads[0], step.name)
        reads.append([own] if home in (None, own) else [home, own])

    def _plan_returned(self, number: int, name: str) -> list[Slot]:
        home = self._home(number, name)
        if home is None:
            return []
        key = home.path.removeprefix(f'{ATTRIBUTE}.')
        if self.plan.new.get(key, (0, 1))[0] <= self._output_bits:
            return [home]
        for path, slot in self._readers.get(self._groups[number], ()):
            if self._layers[path].bits == self._output_bits:
                return [home, Slot(f'{path}.input_quantizer', slot)]
        return [home, self._new(name, self._output_bits, 1)]

    def _plan_outputs(self, predictions: Mapping[str, int]) -> None:
        calls: dict[str, int] = {}
        for step in self._tape.steps:
            if step.kind is None and step.name in predictions:
                calls[step.name] = calls.get(step.name, 0) + 1
        for name, count in calls.items():
            home = self._new(f'{name}_output', predictions[name], count)
            self.plan.outputs[name] = [
                Slot(home.path, slot) for slot in range(count)
            ]
