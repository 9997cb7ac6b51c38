"""Whether an exported graph is right for sizes it was not traced with.

A traced network may keep a size of the trace as a number: an interpolation to
a size in pixels, windows counted for the traced batch. The graph then runs for
other sizes, too, and is wrong.

Rounding is left out on both sides, in torch and in a copy of the graph: it
makes any two programs differ by whole steps (see docs/design.md), and has no
part in this. Without it they agree to float precision.
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

from .frozen import FrozenInput

#: Largest difference of an output, in units of its standard deviation.
TOLERANCE = 0.02
# Images, and multiples of the divisor: odd and even, whole windows of 7 and
# parts of them.
_SHAPES = ((1, 1, 1), (3, 2, 3), (1, 7, 2))
# An output that is nearly constant has float noise of this share.
_FLAT = 1e-3


@torch.no_grad()
def check_shapes(
    model: Any,
    network: nn.Module,
    metadata: dict[str, Any],
    size: tuple[int, int],
    path: Path,
) -> None:
    """Run a dynamic graph at other batch sizes, heights and widths.

    Args:
        model (onnx_ir.Model): The exported graph; it stays as it is.
        network (nn.Module): The frozen network that it came from, images of
            shape (N, C, H, W) to outputs. It rounds no more afterwards.
        metadata (dict): Of the file.
        size (tuple[int, int]): Height and width that it was traced with.
        path (Path): What will be written, ``.onnx`` or ``.xml``.

    Raises:
        ValueError: If it fails or differs at one of them. (Sizes that the
            network itself does not take are left out.)
    """
    _drop_rounding(network)
    backend = OnnxRuntime if path.suffix == '.onnx' else OpenVINORuntime
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / 'unrounded.onnx'
        copy.write_bytes(_unrounded(model).SerializeToString())
        runtime = backend(copy, metadata, None, False)
        for shape in _shapes(metadata['input'], size):
            wrong = _wrong_at(shape, network, runtime)
            if wrong:
                batch, _, height, width = shape
                raise ValueError(
                    f'{path} was not written: its graph is wrong for {batch} '
                    f'image(s) of {height} x {width} pixels (height x width):'
                    f' {wrong}. The network turns a size that it is traced '
                    'with into a number; expected one that works for any. '
                    'Export it for one batch size, height and width: '
                    '--batch N --size H W in the place of --dynamic '
                    '(dynamic=False).'
                )


def _wrong_at(shape: tuple, network: nn.Module, runtime: Runtime) -> str:
    """What is wrong there, if anything."""
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        wanted = network(images)
    except (RuntimeError, AssertionError, ValueError):
        return ''
    try:
        got = flatten(runtime(images))
    except Exception as error:  # the backends' own have no common base
        return f'{type(error).__name__}: {error}'
    apart = max(map(difference, wanted, got))
    # Not "greater": that would let a NaN pass.
    if apart <= TOLERANCE:
        return ''
    return f'an output is off by {apart:.2g} of its standard deviation'


def _drop_rounding(network: nn.Module) -> None:
    """Let every frozen input quantizer pass its input on."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, FrozenInput):
                setattr(module, name, nn.Identity())


def difference(wanted: Tensor, got: Tensor) -> float:
    """Largest difference in units of the standard deviation of ``wanted``.

    Args:
        wanted (Tensor): Any shape.
        got (Tensor): Infinitely far off if of another shape.
    """
    if wanted.shape != got.shape:
        return float('inf')
    wanted = wanted.double()
    flat = _FLAT * wanted.square().mean().sqrt()
    unit = torch.maximum(wanted.std(correction=0), flat).clamp(min=1e-12)
    return float((wanted - got).abs().max() / unit)


def _shapes(
    spec: dict[str, Any], size: tuple[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    channels, unit = spec['channels'], spec['divisor']
    yield 1, channels, *size
    for batch, *multiples in _SHAPES:
        height, width = (min(m, MAX_SIDE // unit) * unit for m in multiples)
        yield batch, channels, height, width


def _unrounded(model: Any) -> Any:
    """An ONNX copy, QuantizeLinear, Clip, DequantizeLinear passed by."""
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
