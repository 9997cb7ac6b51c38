"""Checks a ``.tflite`` file against the rules of its target."""

import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require
from mmgor.listing import listed

_LARGEST = 127
_LAYERS = {
    'CONV_2D': 0,
    'DEPTHWISE_CONV_2D': 3,
    'TRANSPOSE_CONV': 0,
    'FULLY_CONNECTED': 0,
}
# The grid of the output is the grid of the inputs.
_UNIFIED = {
    'AVERAGE_POOL_2D',
    'CONCATENATION',
    'MAX_POOL_2D',
    'RESHAPE',
    'RESIZE_BILINEAR',
    'RESIZE_NEAREST_NEIGHBOR',
    'TRANSPOSE',
}
# SUPPORTED_OPS.md of ethos-u-vela 5.2.0, those that an exported network has.
_NPU = _UNIFIED | {
    'ABS',
    'ADD',
    'CONV_2D',
    'DEPTHWISE_CONV_2D',
    'EXPAND_DIMS',
    'FULLY_CONNECTED',
    'HARD_SWISH',
    'LEAKY_RELU',
    'LOGISTIC',
    'MAXIMUM',
    'MEAN',
    'MINIMUM',
    'MUL',
    'PACK',
    'PAD',
    'PRELU',
    'QUANTIZE',
    'RELU',
    'RELU6',
    'SLICE',
    'SOFTMAX',
    'SPLIT',
    'SPLIT_V',
    'SQUEEZE',
    'STRIDED_SLICE',
    'SUB',
    'TANH',
    'TRANSPOSE_CONV',
    'UNPACK',
}
_NPU_TARGET = 'ethos-u'
_LAYER = 'layer_'


class Operator:
    """One operator of a ``.tflite`` file.

    Args:
        kind (str): Name of the operator, such as 'CONV_2D'.
        inputs (list[TensorT]): The tensors that it reads.
        outputs (list[TensorT]): The tensors that it makes.
    """

    def __init__(self, kind: str, inputs: list, outputs: list) -> None:
        self.kind = kind
        self.inputs = inputs
        self.outputs = outputs

    def __str__(self) -> str:
        names = [end.name.decode() for end in (*self.outputs, *self.inputs)]
        # The outputs of the network are named otherwise.
        path = module_path(next((n for n in names if ';' in n), ''))
        return f'{self.kind} of {path}' if path else self.kind


class TFLiteFile:
    """The operators and constants of a ``.tflite`` file.

    Args:
        model (ModelT): Object of LiteRT's schema.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._schema = require('ai_edge_litert.schema_py_generated')

    @cached_property
    def operators(self) -> list[Operator]:
        """All operators in the order in which they run."""
        graph = self._model.subgraphs[0]
        builtin = vars(self._schema.BuiltinOperator).items()
        names = {code: name for name, code in builtin}
        codes = self._model.operatorCodes
        found = []
        for entry in graph.operators:
            code = codes[entry.opcodeIndex]
            ends = (
                [graph.tensors[i] for i in indices if i >= 0]
                for indices in (entry.inputs, entry.outputs)
            )
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            found.append(Operator(names[number], *ends))
        return found

    def type_of(self, tensor: Any) -> str:
        """Name of a tensor's type, such as 'INT8'."""
        kinds = vars(self._schema.TensorType).items()
        return {code: name for name, code in kinds}[tensor.type]

    def is_constant(self, tensor: Any) -> bool:
        """Whether a tensor is part of the file."""
        return self._model.buffers[tensor.buffer].data is not None

    def integers(self, tensor: Any) -> NDArray:
        """The values of a constant of int8."""
        data = self._model.buffers[tensor.buffer].data
        return np.frombuffer(bytes(data), np.int8)


def module_path(name: str) -> str:
    """The module in the detector that a tensor came from.

    Args:
        name (str): Name of the tensor: for each operator that was fused into
            one the path of its module, such as
            'layer_backbone/conv1;layer_backbone;2'.

    Returns:
        str: Path of the innermost module, such as 'backbone.conv1'; '' if the
        name does not tell.
    """
    paths = [
        part.removeprefix(_LAYER)
        for part in name.split(';')
        if part.startswith(_LAYER)
    ]
    return max(paths, key=len, default='').replace('/', '.')


def check_rules(model: Any, name: str, path: Path) -> None:
    """Make sure that a ``.tflite`` file keeps all rules of its target.

    Args:
        model (ModelT): As read from the file.
        name (str): 'litert' or 'ethos-u'.
        path (Path): The file, for the message.

    Raises:
        ValueError: If it breaks one; the message names the modules.

    Warns:
        UserWarning: If 'litert' has to compute operators in float that have
            no weights.
    """
    file = TFLiteFile(model)
    broken = [line for rule in _RULES for line in rule(file)]
    floats = [str(op) for op in file.operators if _is_float(file, op)]
    if name == _NPU_TARGET:
        broken += [f'{op}, which computes in float' for op in floats]
        broken += [
            f'{op}, which the NPU does not have'
            for op in file.operators
            if op.kind not in _NPU
        ]
    elif floats and not broken:
        warnings.warn(
            f'{path} computes in float: {listed(floats, "; ")}.',
            stacklevel=2,
        )
    if broken:
        raise ValueError(
            f'{path} was not written, since {name} could not run it in '
            f'integers: {listed(broken, "; ")}. Expected a model trained with '
            f'quant=dict(target={name!r}) that has no norm but batch norm '
            'behind a layer (group norm reads floats).'
        )


def _is_float(file: TFLiteFile, op: Operator) -> bool:
    """Whether an operator makes float values; those with weights count as
    broken."""
    kinds = [file.type_of(tensor) for tensor in op.outputs]
    return 'FLOAT32' in kinds and op.kind not in _LAYERS


def _weights(file: TFLiteFile) -> Iterator[str]:
    for op in file.operators:
        if op.kind not in _LAYERS:
            continue
        weight = op.inputs[1]
        kind = file.type_of(weight)
        if kind not in ('INT8', 'INT4') or not file.is_constant(weight):
            yield f'{op} with weights of {kind.lower()}, expected int8'
            continue
        grid, channels = weight.quantization, op.outputs[0].shape[-1]
        if grid.quantizedDimension != _LAYERS[op.kind]:
            yield f'{op} with scales along axis {grid.quantizedDimension}'
        if len(grid.scale) not in (1, channels):
            yield f'{op} with {len(grid.scale)} scales of {channels} channels'
        if any(grid.zeroPoint):
            yield f'{op} with a zero point of weights, expected 0'
        if kind == 'INT8' and file.integers(weight).min() < -_LARGEST:
            yield f'{op} with weights below -{_LARGEST}'


def _activations(file: TFLiteFile) -> Iterator[str]:
    for op in file.operators:
        for tensor in op.outputs:
            kind, grid = file.type_of(tensor), tensor.quantization
            if kind == 'FLOAT32':
                if op.kind in _LAYERS:
                    yield f'{op} with a result that is not rounded'
            elif kind not in ('INT8', 'INT32', 'BOOL'):
                yield f'{op} with values of {kind.lower()}, expected int8'
            elif kind == 'INT8' and len(grid.scale) != 1:
                yield f'{op} with {len(grid.scale)} scales, expected one'


def _unified(file: TFLiteFile) -> Iterator[str]:
    for op in file.operators:
        if op.kind not in _UNIFIED:
            continue
        grids = {
            (float(t.quantization.scale[0]), int(t.quantization.zeroPoint[0]))
            for t in (*op.inputs, *op.outputs)
            if file.type_of(t) == 'INT8'
        }
        if len(grids) > 1:
            yield f'{op} with the grids {sorted(grids)}, expected one'


def _sigmoid(file: TFLiteFile) -> Iterator[str]:
    for op in file.operators:
        grid = op.outputs[0].quantization
        if op.kind != 'LOGISTIC' or file.type_of(op.outputs[0]) != 'INT8':
            continue
        found = float(grid.scale[0]), int(grid.zeroPoint[0])
        if found != (1 / 256, -128):
            yield f'{op} with the grid {found}, expected (1/256, -128)'


_RULES: tuple[Callable[[TFLiteFile], Iterator[str]], ...] = (
    _weights,
    _activations,
    _unified,
    _sigmoid,
)
