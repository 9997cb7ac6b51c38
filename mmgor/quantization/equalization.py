"""Brings the channels of an activation to a common range, before training.

With one scale per tensor, the widest channel decides the step size. Where the
widest channel is a thousand times wider than the narrowest, 8 bits leave
nothing of the narrow ones. Between two layers without an activation function,
a factor per channel can be moved from one to the other (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019). It does not pass through SiLU, but an affine change almost does:

    activation(x) ~ factor * activation(gain * x + shift) + offset

A narrow channel only sees a piece of the curve, and a larger piece with the
same ratio of slope and curvature looks alike. A wide channel sees two straight
lines. :func:`fit_channels` finds the four numbers of each channel by least
squares, and :func:`equalize` moves them into the layers on both sides.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmengine import dist
from torch import Tensor, nn

from mmgor.quantization.quantizers.base import without_rounding
from mmgor.trial_run import trial_run

# Largest value of the common grid, which has this many steps on each side.
PEAKS = (2.0, 4.0, 8.0, 16.0, 32.0)
STEPS = 127
# Gains are tried in steps of sqrt(2).
GAINS = tuple(2 ** (k / 2) for k in range(-8, 11))
# Values that the median of a channel is moved to.
CENTERS = tuple(k / 2 for k in range(-8, 9))
SAMPLES_PER_BATCH = 128


class ChannelFit(NamedTuple):
    """Four numbers per channel, each of shape (C, ), and their error.

    Attributes:
        gain (Tensor): Factor of the activation's input.
        shift (Tensor): Added to it then.
        factor (Tensor): Factor of the activation's output, above 0.
        offset (Tensor): Added to it then.
        error (Tensor): Squared error on the common grid, summed over the
            channels with their importance, relative to the variance of the
            output; shape ().
    """

    gain: Tensor
    shift: Tensor
    factor: Tensor
    offset: Tensor
    error: Tensor


def fit_channels(
    x: Tensor, importance: Tensor, activation: Callable[[Tensor], Tensor]
) -> ChannelFit:
    """Fit ``factor * activation(gain * x + shift) + offset`` to
    ``activation(x)``, on a grid that all channels share.

    Both the input and the output of the activation are rounded to the same
    symmetric grid of 8 bits. Its range is the one of ``PEAKS`` with the least
    error.

    Args:
        x (Tensor): Values of each channel before the activation, shape
            (C, N).
        importance (Tensor): Weight of each channel's squared error, shape
            (C, ).
        activation (Callable): An elementwise function.

    Returns:
        ChannelFit: The best fit. Channels whose output is constant keep their
        values.
    """
    target = activation(x)
    center = x.median(1, keepdim=True).values
    variance = (importance * target.var(1, unbiased=False)).sum()
    fits = [
        _fit_to_grid(x, target, center, activation, peak) for peak in PEAKS
    ]
    sums = torch.stack([(importance * error).sum() for error, _ in fits])
    best = int(sums.argmin())
    gain, shift, factor, offset = fits[best][1]
    return ChannelFit(gain, shift, factor, offset, sums[best] / variance)


def _fit_to_grid(
    x: Tensor,
    target: Tensor,
    center: Tensor,
    activation: Callable[[Tensor], Tensor],
    peak: float,
) -> tuple[Tensor, Tensor]:
    """Squared errors (C, ) and parameters (4, C) for one range."""
    one, zero = torch.ones(len(x)), torch.zeros(len(x))
    found = torch.stack([one, zero, one, zero])
    least = torch.full_like(one, math.inf)
    for gain in GAINS:
        places = torch.tensor(CENTERS)[:, None] - gain * center.T
        for shift in (*places, zero):
            value = _round(gain * x + shift[:, None], peak)
            value = _round(activation(value), peak)
            factor, offset, error = _regress(value, target)
            better = (factor > 0) & (error < least)
            least = torch.where(better, error, least)
            new = torch.stack([gain * one, shift, factor, offset])
            found = torch.where(better, new, found)
    return torch.where(least.isinf(), zero, least), found


def _round(x: Tensor, peak: float) -> Tensor:
    step = peak / STEPS
    return (x / step).round().clamp(-STEPS, STEPS) * step


def _regress(value: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, intercept and mean squared error of each row's least squares."""
    mean, aim = value.mean(1, keepdim=True), target.mean(1, keepdim=True)
    spread = (value - mean).square().mean(1)
    slope = ((value - mean) * (target - aim)).mean(1) / spread.clamp(1e-12)
    intercept = aim[:, 0] - slope * mean[:, 0]
    fitted = slope[:, None] * value + intercept[:, None]
    return slope, intercept, (fitted - target).square().mean(1)


@torch.no_grad()
def equalize(
    model: nn.Module,
    pairs: Mapping[str, list[str]],
    batches: Iterable[Any],
    run: Callable[[Any], Any],
) -> dict[str, float]:
    """Fold a :func:`fit_channels` into the layers around activations.

    ``gain`` and ``shift`` go into the batch norm before the activation,
    ``factor`` into the weights after it, and ``offset`` into the mean of the
    batch norm behind those. Where a layer pads with zeros, the offset is
    missing, so that the pixels at the border change a little.

    Args:
        model (nn.Module): A float detector, or one whose quantizers are not
            calibrated yet. It is changed in place.
        pairs (Mapping[str, list[str]]): Path of a ``ConvModule`` with batch
            norm and activation -> paths of all ``ConvModule`` that read its
            output. Nothing else may read it.
        batches (Iterable): Arguments of ``run``.
        run (Callable): Runs the model on one batch.

    Returns:
        dict[str, float]: Path -> the fit's error (:class:`ChannelFit`).

    Raises:
        ValueError: If a path is not one of a ``ConvModule`` with batch norm,
            or a reader has other channels or is grouped but not depthwise.
        RuntimeError: If a layer did not run.
    """
    found = {name: _pair(model, name, pairs[name]) for name in pairs}
    samples: dict[str, list[Tensor]] = {name: [] for name in pairs}
    with trial_run(model), _sampling(model, found, samples):
        for batch in batches:
            run(batch)
    errors = {}
    for name, (layer, readers) in found.items():
        if not samples[name]:
            raise RuntimeError(
                f'equalize expected {name} to run, but no batch reached it.'
            )
        x = torch.cat(samples[name], 1)
        importance = torch.stack([_importance(r) for r in readers]).sum(0)
        fit = fit_channels(x, importance.cpu(), layer.activate)
        parts = [part.to(layer.norm.weight) for part in fit]
        for part in parts:
            dist.broadcast(part)  # each rank has seen other images
        fit = ChannelFit(*parts)
        layer.norm.weight.mul_(fit.gain)
        layer.norm.bias.mul_(fit.gain).add_(fit.shift)
        for reader in readers:
            _fold(reader, fit)
        errors[name] = float(fit.error)
    return errors


def _pair(
    model: nn.Module, name: str, readers: list[str]
) -> tuple[Any, list[Any]]:
    layer, *others = (_conv_module(model, path) for path in (name, *readers))
    if not layer.with_activation or not others:
        raise ValueError(
            f'equalize expected {name} to have an activation and a list of '
            f'the layers that read it, got {readers}.'
        )
    channels = layer.conv.out_channels
    for path, other in zip(readers, others):
        conv = other.conv
        depthwise = conv.groups == conv.out_channels
        fits = isinstance(conv, nn.Conv2d) and conv.in_channels == channels
        if not fits or not (conv.groups == 1 or depthwise):
            raise ValueError(
                f'equalize expected {path} to read the {channels} channels '
                f'of {name} all together or one by one (depthwise), got '
                f'{conv}.'
            )
    return layer, others


def _conv_module(model: nn.Module, path: str) -> Any:
    found = dict(model.named_modules()).get(path)
    norm: Any = found.norm if isinstance(found, ConvModule) else None
    if getattr(norm, 'running_mean', None) is None or norm.weight is None:
        known = [
            name
            for name, module in model.named_modules()
            if isinstance(module, ConvModule) and module.with_norm
        ]
        raise ValueError(
            f'equalize expected the path of a ConvModule with batch norm, got '
            f'{path!r}. There are {known}.'
        )
    return found


@contextmanager
def _sampling(
    model: nn.Module,
    found: Mapping[str, tuple[Any, list[Any]]],
    samples: dict[str, list[Tensor]],
) -> Iterator[None]:
    """Collect what the norms make; no quantizer rounds meanwhile."""
    generator = torch.Generator().manual_seed(0)

    def collect(kept: list[Tensor], output: Tensor) -> None:
        rows = output.detach().transpose(0, 1).flatten(1).float()
        index = torch.randint(
            rows.shape[1], (SAMPLES_PER_BATCH,), generator=generator
        )
        kept.append(rows[:, index.to(rows.device)].cpu())

    with ExitStack() as stack:
        for name, (layer, _) in found.items():
            hook = layer.norm.register_forward_hook(
                lambda *call, kept=samples[name]: collect(kept, call[-1])
            )
            stack.callback(hook.remove)
        stack.enter_context(without_rounding(model))
        yield


def _importance(reader: Any) -> Tensor:
    """What a unit of squared error in each input channel, at each tap, adds
    to the output of the reader's norm; shape (C, )."""
    norm, weight = reader.norm, reader.conv.weight
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    energy = (weight * gain[:, None, None, None]).square().sum((2, 3))
    return energy.sum(1 if reader.conv.groups > 1 else 0)


def _fold(reader: Any, fit: ChannelFit) -> None:
    weight = reader.conv.weight
    depthwise = reader.conv.groups > 1
    factor, offset = (
        x[:, None] if depthwise else x[None] for x in (fit.factor, fit.offset)
    )
    lost = (weight.sum((2, 3)) * offset).sum(1)
    weight.mul_(factor[..., None, None])
    reader.norm.running_mean.sub_(lost)
