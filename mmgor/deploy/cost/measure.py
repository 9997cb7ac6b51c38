"""Measure the cost of every layer of a detector, in float32 passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmgor.deploy.export.frozen import Unrounded
from mmgor.image_channels import COLOUR, image_channels
from mmgor.quantization import (
    BaseQuantizer,
    layer_macs,
    layer_table,
    quantized_layers,
)
from mmgor.training_mode import evaluating

from .rows import EVERYTHING_ELSE, LayerCalls, LayerCost, layer_row, rest_row

WARMUP_PASSES = 1
TIMED_PASSES = 5
# Stride of the last stage of the usual backbones: smaller images leave it less
# than one pixel.
_MIN_SIDE = 32


def check_size(size: tuple[int, int]) -> None:
    """Refuse sizes that are too small for a backbone.

    Args:
        size (tuple[int, int]): Height and width of the input in pixels.

    Raises:
        ValueError: If a side is less than 32 pixels.
    """
    if min(size) < _MIN_SIDE:
        raise ValueError(
            'the input is too small: expected a height and a width of at '
            f'least {_MIN_SIDE} pixels, got {size[0]} x {size[1]}. Give the '
            'size of the test images, e.g. 640 x 640.'
        )


@torch.no_grad()
def layer_costs(model: nn.Module, size: tuple[int, int]) -> list[LayerCost]:
    """Run a detector on a random image and measure each layer.

    The backbone, the neck and the dense head run; a DETR runs as a whole. In a
    two-stage detector the RPN runs, but not the RoI head, whose work depends
    on the image. Post-processing does not run. Meanwhile, identities replace
    the quantizers: times are those of the float computation, and the model
    need not be calibrated. (The observer ``PassThrough`` is not enough: with
    it, the quantizers would still check for non-finite values, which takes as
    long as a depthwise convolution.)

    Args:
        model (nn.Module): Detector with ``extract_feat`` and ``bbox_head``
            or ``rpn_head``, on the CPU. It is left as it was.
        size (tuple[int, int]): Height and width of the input in pixels.

    Returns:
        list[LayerCost]: One row per layer, in the model's order. The last
        row, :data:`.EVERYTHING_ELSE`, has the remaining parameters, bytes and
        time.

    Raises:
        ValueError: If the size is too small, if the model cannot run on it,
            or if it is not a detector.
    """
    check_size(size)
    _check_detector(model)
    table = layer_table(model)
    modules = dict(model.named_modules())
    stopwatch = _Stopwatch(
        {row['name']: modules[row['name']] for row in table['layers']}
    )
    generator = torch.Generator().manual_seed(0)
    channels = image_channels(model) or COLOUR
    image = torch.rand(1, channels, *size, generator=generator)
    with stopwatch, _float_inference(model):
        for _ in range(WARMUP_PASSES + TIMED_PASSES):
            stopwatch.start_pass()
            _run(model, image)
            stopwatch.mark(EVERYTHING_ELSE)
    seconds = stopwatch.seconds()
    rows = [
        layer_row(row, stopwatch.calls[row['name']], seconds[row['name']])
        for row in table['layers']
    ]
    rest = rest_row(rows, table['total'], seconds[EVERYTHING_ELSE])
    return [*rows, rest]


class _Stopwatch:
    """Cuts passes into pieces: the calls of layers and the time between.

    Each piece counts with its median over the passes. Almost every whole pass
    is interrupted by another process, but a single piece seldom is.

    Args:
        layers (dict[str, nn.Module]): Layers by name. They have hooks inside
            the ``with`` block.

    Attributes:
        calls (dict): MACs and output shape of each call in the last pass, by
            the layer's name.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.layers = layers
        self.calls: dict[str, LayerCalls] = {}
        self._passes: list[list[tuple[str, float]]] = []

    def __enter__(self) -> None:
        self._hooks = [
            hook
            for name, layer in self.layers.items()
            for hook in (
                layer.register_forward_pre_hook(self._before),
                layer.register_forward_hook(partial(self._after, name)),
            )
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def start_pass(self) -> None:
        self.calls = {name: [] for name in self.layers}
        self._passes.append([])
        self._last = perf_counter()

    def mark(self, name: str) -> None:
        """Assign the time since the last mark to ``name``."""
        now = perf_counter()
        self._passes[-1].append((name, now - self._last))
        self._last = now

    def _before(self, *_: object) -> None:
        self.mark(EVERYTHING_ELSE)

    def _after(self, name: str, layer: nn.Module, x: Any, y: Any) -> None:
        self.mark(name)
        macs = layer_macs(layer, x[0] if x else None, y)
        # nn.MultiheadAttention also returns attention weights.
        first = y if isinstance(y, Tensor) else y[0]
        self.calls[name].append((macs, tuple(first.shape[1:])))
        self._last = perf_counter()

    def seconds(self) -> dict[str, float]:
        """Seconds per pass by name: the sum over its pieces."""
        sums = dict.fromkeys([*self.layers, EVERYTHING_ELSE], 0.0)
        timed = self._passes[WARMUP_PASSES:]
        assert len({len(pieces) for pieces in timed}) == 1, 'passes differ'
        for piece in zip(*timed):
            sums[piece[0][0]] += median(seconds for _, seconds in piece)
        return sums


def _check_detector(model: nn.Module) -> None:
    heads = [hasattr(model, name) for name in ('bbox_head', 'rpn_head')]
    if not (hasattr(model, 'extract_feat') and any(heads)):
        raise ValueError(
            'expected a detector with extract_feat and bbox_head or '
            f'rpn_head, got a {type(model).__name__}.'
        )


@contextmanager
def _float_inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, with identities in place of quantizers."""
    owned = [
        (owner._modules, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if isinstance(child, BaseQuantizer)
    ]
    shared = [
        (vars(layer), 'input_quantizer', layer.input_quantizer)
        for layer in quantized_layers(model).values()
        if not layer.owns_input_quantizer
    ]
    places: list[tuple[dict[str, Any], str, Any]] = [*owned, *shared]
    with evaluating(model):
        for place, name, _ in places:
            place[name] = Unrounded()
        try:
            yield
        finally:
            for place, name, quantizer in places:
                place[name] = quantizer


def _run(model: Any, image: Tensor) -> None:
    size = tuple(image.shape[-2:])
    try:
        if hasattr(model, 'forward_transformer'):
            info = dict(img_shape=size, batch_input_shape=size)
            sample = DetDataSample(metainfo=info)
            model(image, [sample], mode='tensor')
            return
        features = model.extract_feat(image)
        two_stage = hasattr(model, 'rpn_head')
        (model.rpn_head if two_stage else model.bbox_head)(features)
    except RuntimeError as error:
        raise ValueError(
            f'{type(model).__name__} does not run on {size[0]} x {size[1]} '
            f'pixels ({error}); expected a size that its strides divide, '
            'e.g. 640 x 640.'
        ) from error
