"""Checks that a dynamic graph is right for sizes it was not traced with.

A trace may turn a size into a constant, such as the target size of an
interpolation or the number of windows in a batch. The graph then runs for
other sizes too, but it is wrong.

The check runs without rounding, both in torch and in a copy of the graph.
Rounding makes any two programs differ by whole steps (see docs/design.md);
without it they agree to float precision.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.deploy.description.metadata_check import MAX_SIDE
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.optional_imports import require
from mmgor.deploy.runtime.runtime import OnnxRuntime, OpenVINORuntime, Runtime

from .frozen import FrozenInput, Unrounded
from .saving import read_as_openvino

#: Largest difference of an output, in units of its standard deviation.
TOLERANCE = 0.02
# Batch size, and height and width in multiples of the divisor: odd and even,
# whole windows of 7 and parts of windows.
_SHAPES = ((1, 1, 1), (3, 2, 3), (1, 7, 2))
# Least unit of a difference, relative to the root mean square of the output:
# a nearly constant output differs by float noise.
_FLAT = 1e-3


@torch.no_grad()
def check_shapes(
    model: Any,
    network: nn.Module,
    metadata: dict[str, Any],
    size: tuple[int, int],
    path: Path,
) -> None:
    """Compare a dynamic graph with its network at other shapes.

    Shapes that the network itself does not take are left out.

    Args:
        model (onnx_ir.Model): The exported graph; it is not changed.
        network (nn.Module): The frozen network that was traced. It takes
            images of shape (N, C, H, W) and gives a list of outputs. Its
            rounding is removed.
        metadata (dict): Metadata of the file.
        size (tuple[int, int]): Traced height and width, in pixels.
        path (Path): The ``.onnx`` or ``.xml`` file to be written.

    Raises:
        ValueError: If the graph fails or differs at one of the shapes.
    """
    _drop_rounding(network)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / 'unrounded.onnx'
        copy.write_bytes(_unrounded(model).SerializeToString())
        runtime = _open(copy, metadata, path.suffix)
        for shape in _shapes(metadata['input'], size):
            wrong = _wrong_at(shape, network, runtime)
            if wrong:
                batch, _, height, width = shape
                raise ValueError(
                    f'{path} was not written: its graph is wrong for {batch} '
                    f'image(s) of {height} x {width} pixels (height x width):'
                    f' {wrong}. The trace of this network has a size as a '
                    'constant; expected a network that is traced for any '
                    'size. Export it for one batch size, height and width: '
                    '--batch N --size H W instead of --dynamic '
                    '(dynamic=False).'
                )


def _open(copy: Path, metadata: dict[str, Any], suffix: str) -> Runtime:
    """Open an ``.onnx`` file in the backend that reads a suffix."""
    if suffix == '.onnx':
        return OnnxRuntime(copy, metadata, None, False)
    xml = copy.with_suffix('.xml')
    require('openvino').save_model(
        read_as_openvino(copy), xml, compress_to_fp16=False
    )
    return OpenVINORuntime(xml, metadata, None, False)


def _wrong_at(shape: tuple, network: nn.Module, runtime: Runtime) -> str:
    """How the graph fails or differs at a shape; '' if it is right."""
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        wanted = network(images)
    except (RuntimeError, AssertionError, ValueError):
        return ''
    try:
        got = flatten(runtime(images))
    except Exception as error:  # backends' exceptions have no common base
        return f'{type(error).__name__}: {error}'
    apart = max(map(difference, wanted, got))
    # Not "greater": that would let a NaN pass.
    if apart <= TOLERANCE:
        return ''
    return f'an output is off by {apart:.2g} of its standard deviation'


def _drop_rounding(network: nn.Module) -> None:
    """Replace every frozen input quantizer by the identity."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, FrozenInput):
                setattr(module, name, Unrounded())


def difference(wanted: Tensor, got: Tensor) -> float:
    """Largest difference in units of the standard deviation of ``wanted``.

    Args:
        wanted (Tensor): Any shape.
        got (Tensor): Any shape.

    Returns:
        float: Infinity if the shapes differ.
    """
    if wanted.shape != got.shape:
        return float('inf')
    return float((wanted.double() - got).abs().max() / spread(wanted))


def spread(wanted: Tensor) -> Tensor:
    """The standard deviation of a tensor, or a thousandth of its root mean
    square if that is more. Differences are counted in it."""
    wanted = wanted.double()
    flat = _FLAT * wanted.square().mean().sqrt()
    return torch.maximum(wanted.std(correction=0), flat).clamp(min=1e-12)


def _shapes(
    spec: dict[str, Any], size: tuple[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """(N, C, H, W) to compare at: the traced size first."""
    channels, divisor = spec['channels'], spec['divisor']
    yield 1, channels, *size
    for batch, *multiples in _SHAPES:
        height, width = (
            min(multiple, MAX_SIDE // divisor) * divisor
            for multiple in multiples
        )
        yield batch, channels, height, width


def _unrounded(model: Any) -> Any:
    """A copy as ONNX, without QuantizeLinear, Clip and DequantizeLinear of
    activations."""
    copy = require('onnx_ir').to_proto(model)
    producers = {out: n for n in copy.graph.node for out in n.output}
    passed: dict[str, str] = {}
    for node in copy.graph.node:
        if node.op_type != 'DequantizeLinear':
            continue
        before = producers.get(node.input[0])
        while before is not None and before.op_type == 'Clip':
            before = producers.get(before.input[0])
        if before is not None and before.op_type == 'QuantizeLinear':
            passed[node.output[0]] = before.input[0]
    for node in copy.graph.node:
        for i, name in enumerate(node.input):
            while name in passed:
                name = passed[name]
            node.input[i] = name
    return copy
