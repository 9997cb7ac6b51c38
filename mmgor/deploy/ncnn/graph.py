"""ncnn's two files: layers as text in ``.param``, weights in ``.bin``.

A layer is one line: its type, its name, the numbers of its inputs and
outputs, their names, and ``key=value`` for each parameter. The formats are
described in ncnn's wiki (param and model file structure).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 7767517
_INT8_WEIGHT = 0x000D4B38
_FLOAT_WEIGHT = 0
# An array has its key subtracted from this number.
_ARRAY_KEY = -23300
_ALIGNMENT = 4


def format_params(params: dict[int, Any]) -> str:
    """Write the parameters of a layer as ncnn reads them.

    Args:
        params (dict): Ints, floats or sequences of them by their key.

    Example:
        >>> format_params({0: 3, 1: 0.5, 9: (1, 2)})
        '0=3 1=5.00000000e-01 -23309=2,1,2'
    """
    parts = []
    for key, value in params.items():
        if isinstance(value, Sequence):
            values = ','.join(map(_number, (len(value), *value)))
            parts.append(f'{_ARRAY_KEY - key}={values}')
        else:
            parts.append(f'{key}={_number(value)}')
    return ' '.join(parts)


def _number(value: Any) -> str:
    return f'{value:.8e}' if isinstance(value, float) else str(int(value))


def weight_bytes(weight: NDArray) -> bytes:
    """The main weight of a layer, which has a tag of its type.

    Args:
        weight (ndarray): int8 or float32.
    """
    integer = weight.dtype == np.int8
    tag = _INT8_WEIGHT if integer else _FLOAT_WEIGHT
    body = np.ascontiguousarray(weight).tobytes()
    body += bytes(-len(body) % _ALIGNMENT)
    return np.uint32(tag).tobytes() + body


def float_bytes(values: Any) -> bytes:
    """Biases, scales and other floats of a layer, which have no tag."""
    return np.ascontiguousarray(values, np.float32).tobytes()


@dataclass
class Layer:
    """One layer.

    Attributes:
        kind (str): ncnn's name of its type.
        inputs (list[str]): Names of the tensors that it reads.
        outputs (list[str]): Names of the tensors that it gives.
        params (dict): Its parameters by their key.
        weights (bytes): Its part of the ``.bin`` file.
    """

    kind: str
    inputs: list[str]
    outputs: list[str]
    params: dict[int, Any] = field(default_factory=dict)
    weights: bytes = b''


class NcnnGraph:
    """A graph that grows layer by layer, in the order of their execution.

    Args:
        name (str): Name of the input.
        shape (tuple[int, int, int]): Its channels, height and width. ncnn
            runs one image at a time.
    """

    def __init__(self, name: str, shape: tuple[int, int, int]) -> None:
        channels, height, width = shape
        sides = {0: width, 1: height, 2: channels}
        self.layers = [Layer('Input', [], [name], sides)]
        self.outputs: dict[str, str] = {}

    def add(
        self,
        kind: str,
        inputs: Iterable[str],
        params: dict[int, Any] | None = None,
        weights: bytes = b'',
    ) -> str:
        """Add a layer with one output.

        Returns:
            str: Name of the output.
        """
        output = f'blob{len(self.layers)}'
        layer = Layer(kind, list(inputs), [output], params or {}, weights)
        self.layers.append(layer)
        return output

    def producer(self, blob: str) -> Layer:
        """The layer that gives a tensor."""
        return next(layer for layer in self.layers if blob in layer.outputs)

    def files(self) -> tuple[str, bytes]:
        """The contents of the ``.param`` and the ``.bin`` file.

        A tensor has one reader in ncnn. So one with several gets a Split
        layer, which copies nothing. Layers that nothing reads are left out.
        """
        layers = _split(_used(self.layers, self.outputs), self.outputs)
        blobs = sum(len(layer.outputs) for layer in layers)
        lines = [str(_MAGIC), f'{len(layers)} {blobs}']
        for i, layer in enumerate(layers):
            lines.append(
                ' '.join(
                    [
                        layer.kind,
                        f'{layer.kind.lower()}{i}',
                        str(len(layer.inputs)),
                        str(len(layer.outputs)),
                        *layer.inputs,
                        *layer.outputs,
                        format_params(layer.params),
                    ]
                ).rstrip()
            )
        text = '\n'.join(lines) + '\n'
        return text, b''.join(layer.weights for layer in layers)


def _used(layers: list[Layer], outputs: dict[str, str]) -> list[Layer]:
    read = set(outputs.values())
    kept = []
    for layer in reversed(layers):
        if layer.kind == 'Input' or read.intersection(layer.outputs):
            kept.append(layer)
            read.update(layer.inputs)
    return kept[::-1]


def _split(layers: list[Layer], outputs: dict[str, str]) -> list[Layer]:
    """Give each reader its own tensor, and the outputs their names.

    Args:
        layers (list[Layer]): They are not changed.
        outputs (dict): The tensor of each output of the graph by its name.
    """
    readers = Counter(blob for layer in layers for blob in layer.inputs)
    ends: dict[str, list[str]] = {}
    for name, blob in outputs.items():
        ends.setdefault(blob, []).append(name)
    copies: dict[str, list[str]] = {}
    result = []
    for layer in layers:
        inputs = [copies[blob].pop() for blob in layer.inputs]
        (blob,) = layer.outputs
        named = ends.get(blob, [])
        count = readers[blob] + len(named)
        if count == 1:
            given, extra = (named or [blob]), []
        else:
            given = [blob]
            extra = [f'{blob}_copy{i}' for i in range(readers[blob])] + named
        copies[blob] = [n for n in extra or given if n not in named]
        result.append(
            Layer(layer.kind, inputs, given, layer.params, layer.weights)
        )
        if extra:
            result.append(Layer('Split', [blob], extra))
    return result
