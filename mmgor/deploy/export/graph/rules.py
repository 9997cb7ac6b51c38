"""Checks a written ONNX file against the rules of its target."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require
from mmgor.listing import listed
from mmgor.targets import Target

_DOMAINS = ('', 'ai.onnx')
_LAYERS = {'Conv', 'ConvTranspose', 'DeformConv', 'Gemm', 'MatMul'}
_SHAPING = {'Transpose', 'Reshape'}
_MOST = {'int8': 127, 'int4': 7}
_TYPES = {'int8': ('int8',), 'uint8': ('uint8',), 'grid': ('uint8', 'int8')}


class OnnxFile:
    """The nodes and constants of an ONNX file.

    Args:
        model (onnx.ModelProto): As read from the file.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes: list[Any] = list(model.graph.node)

    @cached_property
    def arrays(self) -> dict[str, NDArray]:
        """All constants by name."""
        array = require('onnx.numpy_helper').to_array
        found = {i.name: array(i) for i in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == 'Constant' and node.attribute[0].HasField('t'):
                found[node.output[0]] = array(node.attribute[0].t)
        return found

    @cached_property
    def readers(self) -> dict[str, list[Any]]:
        """The nodes that read each value."""
        found: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def constant(self, node: Any, position: int) -> NDArray | None:
        """The constant that a node reads at a position, if it is one."""
        if position >= len(node.input):
            return None
        return self.arrays.get(node.input[position])

    def of_type(self, *kinds: str) -> Iterator[Any]:
        """The nodes of some operators."""
        return (node for node in self.nodes if node.op_type in kinds)


def check_rules(path: Path, name: str, target: Target) -> None:
    """Make sure that an ONNX file keeps all rules of its target.

    Args:
        path (Path): ``.onnx`` file, with nodes named as by
            :func:`.name_nodes`.
        name (str): Name of the target, for the message.
        target (Target): Whose rules hold.

    Raises:
        ValueError: If it breaks one; the message names the modules.
    """
    model = require('onnx').load(path)
    broken = list(broken_rules(model, target))
    if broken:
        raise ValueError(
            f'the file was not written, since {name} could not read it: '
            f'{listed(broken, "; ")}. Choose another --target, or another '
            'backbone, neck or head.'
        )


def broken_rules(model: Any, target: Target) -> Iterator[str]:
    """One line for each rule of a target that a model breaks.

    Args:
        model (onnx.ModelProto): As read from a file.
        target (Target): Whose rules hold.
    """
    file = OnnxFile(model)
    for rule in RULES:
        yield from rule(file, target)


def _opset(file: OnnxFile, target: Target) -> Iterator[str]:
    for used in file.model.opset_import:
        if used.domain in _DOMAINS and used.version > (target.opset or 0):
            yield f'opset {used.version}, expected at most {target.opset}'


def _operators(file: OnnxFile, target: Target) -> Iterator[str]:
    for node in file.nodes:
        if node.domain not in _DOMAINS:
            yield f'{_of(node)} of domain {node.domain!r}, expected ONNX alone'
        elif node.op_type in target.lacks:
            yield f'{_of(node)}, an operator that it does not have'


def _activations(file: OnnxFile, target: Target) -> Iterator[str]:
    allowed = _TYPES[target.stored]
    for node in file.of_type('QuantizeLinear', 'DequantizeLinear'):
        if file.constant(node, 0) is not None:
            continue  # a weight
        scale, zero = file.constant(node, 1), file.constant(node, 2)
        if scale is None or zero is None:
            yield f'{_of(node)} without a constant scale and zero point'
            continue
        if zero.dtype.name not in allowed:
            yield f'{_of(node)} with {zero.dtype}, expected {allowed}'
        if scale.size > 1 and not target.per_channel_inputs:
            yield f'{_of(node)} with {scale.size} scales, expected one'
        if target.symmetric_inputs and zero.any():
            yield f'{_of(node)} with zero point {zero.max()}, expected 0'
        if not (scale > 0).all():
            yield f'{_of(node)} with a scale that is not above 0'


def _weights(file: OnnxFile, target: Target) -> Iterator[str]:
    allowed = ('int8', 'int4') if target.int4 else ('int8',)
    for node in file.of_type('DequantizeLinear'):
        integers = file.constant(node, 0)
        if integers is None:
            continue
        scale, zero = file.constant(node, 1), file.constant(node, 2)
        kind = integers.dtype.name
        if kind not in allowed:
            yield f'{_of(node)} of {kind} weights, expected {allowed}'
        elif np.abs(integers.astype(np.int32)).max(initial=0) > _MOST[kind]:
            yield f'{_of(node)} of weights outside of +-{_MOST[kind]}'
        if scale is None or not (scale > 0).all():
            yield f'{_of(node)} of weights with a scale that is not above 0'
        if target.weight_zero_points and zero is None:
            yield f'{_of(node)} of weights without a zero point'
        if zero is not None and zero.astype(np.int32).any():
            yield f'{_of(node)} of weights with a zero point, expected 0'
        for reader in file.readers.get(node.output[0], []):
            if reader.op_type not in _LAYERS | _SHAPING:
                yield f'{_of(node)} of weights that {reader.op_type} reads'


def _clips(file: OnnxFile, target: Target) -> Iterator[str]:
    if target.clip != 'float':
        return
    for node in file.of_type('Clip'):
        bounds = [file.constant(node, i) for i in (1, 2)]
        kinds = {b.dtype.name for b in bounds if b is not None}
        if kinds & {'int8', 'uint8'}:
            yield f'{_of(node)} of integers, expected floats'


def _biases(file: OnnxFile, target: Target) -> Iterator[str]:
    for node in file.of_type('Conv', 'ConvTranspose', 'Gemm'):
        bias = file.constant(node, 2)
        if len(node.input) > 2 and (bias is None or bias.dtype != np.float32):
            yield f'{_of(node)} with a bias that is no float32 constant'


def _of(node: Any) -> str:
    """Operator and module of a node, for a message."""
    module = node.name.rpartition('/')[0]
    return f'{node.op_type} in {module}' if module else str(node.op_type)


#: Each gives a line for every place that breaks it.
RULES: tuple[Callable[[OnnxFile, Target], Iterator[str]], ...] = (
    _opset,
    _operators,
    _activations,
    _weights,
    _clips,
    _biases,
)
