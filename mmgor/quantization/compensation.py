"""Rounds weights one after the other; those that are left make up for it.

The nearest integers are best for the weights, not for what a layer computes:
its inputs are correlated, so that the errors of two weights can cancel. Each
weight of a row is rounded in turn, and the others move to where the squared
error of the output is least. This is Optimal Brain Surgeon for rounding
(Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022,
arXiv 2208.11580) in the fixed order and with the Cholesky factor of Frantar
et al., "GPTQ", ICLR 2023, arXiv 2210.17323.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn

from .calibration import quantized_layers
from .layers.quant_layers import QuantConv2d, QuantLinear
from .norms import batch_statistics, norms_with_statistics
from .quantizers.lsq import LSQQuantizer

# Positions of each call of a layer whose inputs are looked at.
_POSITIONS = 1024
# Most weights of a row; the time grows with the cube. It is that of a 3 x 3
# convolution of 512 channels.
_LARGEST = 4608
# Step sizes that are tried, relative to the best one for nearest integers.
_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
# Of the way from an integer to the next that a parameter may be off.
_MARGIN = 0.4
# Weights of a row between two updates of all that follow.
_BLOCK = 64


def round_rows(
    rows: Tensor, moments: Tensor, scale: Tensor, qmin: int, qmax: int
) -> Tensor:
    """Round each row ``w`` to ``scale * integers`` so that the mean of
    ``(w x - rounded x)^2`` is small.

    Inputs with the largest mean square come first.

    Args:
        rows (Tensor): Weights, shape (..., C, D).
        moments (Tensor): Means of ``x x^T`` of the inputs, shape (..., D, D);
            positive definite.
        scale (Tensor): Step size of each row, shape (..., C). It may have more
            axes in front than ``rows``, to try several.
        qmin (int): Smallest integer.
        qmax (int): Largest integer.

    Returns:
        Tensor: Multiples of ``scale``, shape (..., C, D).
    """
    size = rows.shape[-1]
    order = moments.diagonal(dim1=-2, dim2=-1).argsort(-1, descending=True)
    back = order.argsort(-1)
    factor = _factor_of_inverse(moments, order)
    shape = (*scale.shape, size)
    left = rows.expand(shape).gather(-1, order[..., None, :].expand(shape))
    rounded = torch.empty_like(left)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = torch.empty_like(left[..., start:stop])
        for i in range(start, stop):
            weight = left[..., i]
            integer = (weight / scale).round().clamp(qmin, qmax)
            rounded[..., i] = integer * scale
            error = (weight - rounded[..., i]) / factor[..., i, i, None]
            errors[..., i - start] = error
            rest = factor[..., i, None, i + 1 : stop]
            left[..., i + 1 : stop] -= error[..., None] * rest
        # What is not in the block waits for all of it, which saves memory
        # traffic.
        left[..., stop:] -= errors @ factor[..., start:stop, stop:]
    return rounded.gather(-1, back[..., None, :].expand(shape))


def _factor_of_inverse(moments: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, with the inputs in an
    order."""
    moments = moments.gather(-1, order[..., None, :].expand_as(moments))
    moments = moments.gather(-2, order[..., None].expand_as(moments))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    return torch.linalg.cholesky(inverse, upper=True)


def trusted_moments(
    products: Tensor, sums: Tensor, count: Tensor, centered: bool
) -> Tensor:
    """Moments of inputs, with as much of their correlations as was seen.

    Correlations of D inputs at fewer than D positions are chance. They are
    multiplied by ``1 - D / count``, at least 0. Then a row gets the nearest
    integers.

    Args:
        products (Tensor): Sums of ``x x^T``, shape (..., D, D).
        sums (Tensor): Sums of ``x``, shape (..., D).
        count (Tensor): Number of positions, shape (); at least 1.
        centered (bool): Leave out the mean of ``x``.

    Returns:
        Tensor: Positive definite, shape (..., D, D).
    """
    moments = products / count
    seen = moments.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    if centered:
        means = sums / count
        moments = moments - means[..., None] * means[..., None, :]
    squares = moments.diagonal(dim1=-2, dim2=-1)
    trust = (1 - sums.shape[-1] / count).clamp(min=0)
    # For inputs that are constant, or 0 in all images seen.
    least = 1e-2 * squares.mean(-1, keepdim=True) + 1e-6 * seen
    least = least.clamp(min=torch.finfo(seen.dtype).eps)
    return trust * moments + torch.diag_embed((1 - trust) * squares + least)


def fit_rows(
    rows: Tensor, moments: Tensor, scale: Tensor, qmin: int, qmax: int
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`round_rows`, with the step size that is best for each row.

    Those that are tried are 0.8 to 1.3 times the best one for nearest
    integers.

    Args:
        rows (Tensor): See :func:`round_rows`.
        moments (Tensor): See :func:`round_rows`.
        scale (Tensor): Best for nearest integers.
        qmin (int): See :func:`round_rows`.
        qmax (int): See :func:`round_rows`.

    Returns:
        tuple[Tensor, Tensor, Tensor]: The rounded rows, their step sizes, and
        their mean squared errors, which have the shape of ``scale``.
    """
    tried = torch.stack([scale * factor for factor in _FACTORS])
    rounded = round_rows(rows, moments, tried, qmin, qmax)
    errors = mean_squared_errors(rounded - rows, moments)
    least, best = errors.min(0)
    index = best[None, ..., None].expand(1, *rows.shape)
    return (
        rounded.gather(0, index)[0],
        tried.gather(0, best[None])[0],
        least,
    )


def mean_squared_errors(change: Tensor, moments: Tensor) -> Tensor:
    """Mean squares of ``change x``.

    Args:
        change (Tensor): Changes of weights, shape (..., C, D).
        moments (Tensor): Means of ``x x^T``, shape (..., D, D).

    Returns:
        Tensor: Shape (..., C).
    """
    return (change @ moments * change).sum(-1)


@torch.no_grad()
def compensate_weights(
    model: nn.Module, batches: Sequence[Any], run: Callable[[Any], Any]
) -> dict[str, float]:
    """Round the weights of convolutions and linears by :func:`fit_rows`.

    The parameters change as little as that takes, those of frozen layers, too.
    A single step size for all rows stays as it is. The inputs are those of the
    rounded network; each call counts alike. A constant error of an output does
    not count where the layer's bias can take it, which is changed accordingly,
    or the batch norm that reads the output: call this in a block of
    :func:`.norms.correct_norms`.

    Only layers of the classes ``Conv2d`` and ``Linear`` with up to 4608
    weights per output whose step sizes are learned (LSQ) are changed. Others
    compute something else, or find their step sizes from the weights. A weight
    that belongs to several layers stays as it is. The sums need 8 bytes for
    each pair of weights of a row.

    Args:
        model (nn.Module): Calibrated. Its weights are changed in place.
        batches (Sequence): Arguments of ``run``. In a distributed run, every
            rank has as many.
        run (Callable): Runs the model on one batch, in training mode.

    Returns:
        dict[str, float]: Path of a layer that was changed -> squared error of
        its output, as a share of the one that nearest integers have, as far as
        correlations are trusted.
    """
    layers = quantized_layers(model)
    owners = Counter(id(layer.weight) for layer in layers.values())
    inputs = {
        name: _Inputs(layer)
        for name, layer in layers.items()
        if type(layer) in (QuantConv2d, QuantLinear)
        and owners[id(layer.weight)] == 1
        and layer.weight[0].numel() <= _LARGEST
        and isinstance(layer.weight_quantizer, LSQQuantizer)
    }
    with _watched(model, inputs.values()):
        for batch in batches:
            run(batch)
    shares = {}
    for name in list(inputs):
        seen = inputs.pop(name)  # its sums may be large
        # Every rank has the same layers, but not every layer runs on each.
        if seen.gather():
            shares[name] = seen.compensate()
    return shares


class _Inputs:
    """What the rows of a layer's weight are multiplied with."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        groups, size = getattr(layer, 'groups', 1), layer.weight[0].numel()
        zeros = partial(layer.weight.new_zeros, dtype=torch.double)
        self.count = zeros(())
        self.sums = zeros(groups, size)
        self.products = zeros(groups, size, size)
        # Calls, and how many of them a batch norm read.
        self.calls, self.followed = zeros(()), zeros(())
        self.entered = False

    def add(self, x: Tensor, generator: torch.Generator) -> None:
        columns = _columns(self.layer, x.double(), generator)
        self.count += columns.shape[-1]
        self.sums += columns.sum(-1)
        self.products += columns @ columns.mT

    def gather(self) -> bool:
        """Add up over all ranks; whether there was any input."""
        for part in (
            self.count,
            self.sums,
            self.products,
            self.calls,
            self.followed,
        ):
            dist.all_reduce(part)
        return bool(self.count)

    def compensate(self) -> float:
        layer, weight = self.layer, self.layer.weight.detach()
        takes_means = layer.bias is not None or bool(
            self.followed == self.calls
        )
        moments = trusted_moments(
            self.products, self.sums, self.count, takes_means
        )
        rows = weight.reshape(len(moments), -1, moments.shape[-1]).double()
        quantizer: LSQQuantizer = layer.weight_quantizer
        grid = quantizer.grid(weight)
        bounds = grid.qmin, grid.qmax
        scale = grid.scale.double().expand(len(weight)).view(rows.shape[:-1])
        nearest = quantizer(weight).view_as(rows)
        before = mean_squared_errors(nearest - rows, moments).sum()
        if quantizer.per_channel:
            rounded, scale, errors = fit_rows(rows, moments, scale, *bounds)
            quantizer.log_scale.copy_(scale.log().view(-1))
        else:
            rounded = round_rows(rows, moments, scale, *bounds)
            errors = mean_squared_errors(rounded - rows, moments)
        weight.copy_(_near(rows, rounded, scale, *bounds).view_as(weight))
        changed = [weight, quantizer.log_scale]
        if layer.bias is not None:
            means = self.sums / self.count
            lost = ((rows - rounded) @ means[..., None]).view(-1)
            layer.bias += lost.to(layer.bias)
            changed.append(layer.bias)
        for tensor in changed:  # devices may round differently
            dist.broadcast(tensor.detach())
        return float(errors.sum() / before) if before > 0 else 1.0


def _near(
    rows: Tensor, rounded: Tensor, scale: Tensor, qmin: int, qmax: int
) -> Tensor:
    """The values closest to ``rows`` that nearest integers round to
    ``rounded``, by a margin.

    Training can undo a rounding more easily from here than from the middle
    between two thresholds.
    """
    room, wide = _MARGIN * scale[..., None], scale[..., None]
    near = rounded + (rows - rounded).clamp(-room, room)
    return near.clamp(qmin * wide, qmax * wide)


@contextmanager
def _watched(model: nn.Module, inputs: Collection[_Inputs]) -> Iterator[None]:
    """Collect inputs in the block, of a model in training."""
    generator = torch.Generator().manual_seed(0)
    # The layer that ran last, its output, and the output's version.
    latest: list[Any] = [None, None, 0]

    def enter(seen: _Inputs, *call: Any) -> None:
        seen.entered = True

    def add(seen: _Inputs, *call: Any) -> None:
        if seen.entered:  # other layers may have the same input quantizer
            seen.add(call[-1], generator)
        seen.entered = False

    def leave(seen: _Inputs, *call: Any) -> None:
        seen.calls += 1
        latest[:] = seen, call[-1], call[-1]._version

    def follow(norm: Any, norm_inputs: tuple[Any, ...]) -> None:
        seen, output, version = latest
        # A change in place may have been an activation.
        same = output is norm_inputs[0] and output._version == version
        if same and norm.training:
            seen.followed += 1

    with batch_statistics(model), ExitStack() as stack:
        for seen in inputs:
            layer, quantizer = seen.layer, seen.layer.input_quantizer
            for handle in (
                layer.register_forward_pre_hook(partial(enter, seen)),
                quantizer.register_forward_hook(partial(add, seen)),
                layer.register_forward_hook(partial(leave, seen)),
            ):
                stack.callback(handle.remove)
        for norm in norms_with_statistics(model).values():
            stack.callback(norm.register_forward_pre_hook(follow).remove)
        yield


def _columns(layer: Any, x: Tensor, generator: torch.Generator) -> Tensor:
    """What the rows of the weight are multiplied with at random positions;
    shape (groups, D, N)."""
    if isinstance(layer, QuantLinear):
        flat = x.flatten(0, -2)
        return flat[_some(len(flat), generator)].T[None]
    mode = layer.padding_mode.replace('zeros', 'constant')
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    offsets, sizes = [], []
    for axis in range(2):
        taps = torch.arange(layer.kernel_size[axis]) * layer.dilation[axis]
        offsets.append(taps)
        reach = x.shape[2 + axis] - 1 - int(taps[-1])
        sizes.append(reach // layer.stride[axis] + 1)
    height, width = sizes
    place = _some(len(x) * height * width, generator)
    image = place // (height * width)
    row = place // width % height * layer.stride[0]
    column = place % width * layer.stride[1]
    patches = x[
        image[:, None, None],
        :,
        row[:, None, None] + offsets[0][:, None],
        column[:, None, None] + offsets[1],
    ]  # (N, kh, kw, C)
    rows = patches.permute(3, 1, 2, 0)
    return rows.reshape(layer.groups, layer.weight[0].numel(), len(place))


def _some(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[:_POSITIONS]
