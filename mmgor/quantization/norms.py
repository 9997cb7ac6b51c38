"""Batch norm under rounding: statistics that are kept, or made to fit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.quantization.quantizers.observer import PassThrough
from mmgor.registry import MODELS
from mmgor.trial_run import trial_run

# Factors of a standard deviation beyond this count as this, up and down: a
# channel that rounding silences, or that is silent in these batches, must not
# be amplified without bound.
_LARGEST = 10.0


@MODELS.register_module('EvalBN')
class EvalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that is always in evaluation mode.

    Write ``norm_cfg=dict(type='EvalBN', eps=...)`` in a backbone, neck or
    head. It is meant for a few epochs of QAT that start from a trained
    network. Small batches of images that differ from those it was trained on
    (no mosaic, another size) have other statistics, and the student would
    spend its training on them and not on the low bits. Scale and shift stay
    trainable. State-dict keys are those of batch norm.
    """

    def train(self, mode: bool = True) -> 'EvalBatchNorm2d':
        return super().train(False)


def norms_with_statistics(model: nn.Module) -> dict[str, Any]:
    """Path -> module, for all batch norms that keep statistics."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_var is not None
    }


@torch.no_grad()
def correct_norms(
    model: nn.Module, batches: Sequence[Any], run: Callable[[Any], Any]
) -> dict[str, float]:
    """Let every batch norm expect what rounded layers give it.

    A float network's statistics do not fit once its layers round, and what
    does not fit adds up from layer to layer. Each batch runs twice, without
    and with rounding. The running mean moves by the difference of the two
    means, and the running variance is multiplied by the ratio of the two
    variances. So what the float network knows of all its training images
    stays, and 8 bits change little. In both runs a batch norm normalizes with
    its own batch, so that a layer does not see the errors of those before it
    twice.

    Others take new statistics from the rounded network alone (Chen et al.,
    "AQD", CVPR 2021) or correct means (Nagel et al., "Data-Free Quantization
    Through Weight Equalization and Bias Correction", ICCV 2019).

    Args:
        model (nn.Module): Calibrated, with the statistics of its float
            network, which are changed in place. Statistics that come from
            training with rounding would be corrected a second time.
        batches (Sequence): Arguments of ``run``. In a distributed run, every
            rank has as many.
        run (Callable): Runs the model on one batch, in training mode.

    Returns:
        dict[str, float]: Path of a batch norm that had inputs -> root mean
        square over its channels of the change of its mean, in standard
        deviations.
    """
    norms = norms_with_statistics(model)
    with _without_rounding(model):
        plain = _moments(model, norms, batches, run)
    rounded = _moments(model, norms, batches, run)
    for quantizer in _quantizers(model):
        quantizer.forget_calls()
    moved = {}
    for name, norm in norms.items():
        if name not in plain:
            continue
        (mean, var), (new_mean, new_var) = plain[name], rounded[name]
        kept, seen, new = (
            (v + norm.eps).sqrt() for v in (norm.running_var, var, new_var)
        )
        # The kept statistics may be those of other images.
        shift = (new_mean - mean) * _bounded(kept / seen)
        moved[name] = float((shift / kept).square().mean().sqrt())
        norm.running_mean += shift
        norm.running_var *= _bounded(new / seen).square()
    return moved


def _bounded(factor: Tensor) -> Tensor:
    return factor.clamp(1 / _LARGEST, _LARGEST)


def _moments(
    model: nn.Module,
    norms: dict[str, Any],
    batches: Sequence[Any],
    run: Callable[[Any], Any],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Path -> mean and variance of each channel that reaches a batch norm, as
    averages over its calls; none for norms without calls."""
    # Means, variances, number of calls.
    sums = {
        name: [torch.zeros_like(n.running_mean) for _ in range(3)]
        for name, n in norms.items()
    }
    # It puts random states back, so that both runs drop the same features.
    with trial_run(model), ExitStack() as stack:
        for name, norm in norms.items():
            watch = partial(_watch, sums[name])
            handle = norm.register_forward_pre_hook(watch)
            stack.callback(handle.remove)
            stack.callback(setattr, norm, 'momentum', norm.momentum)
            norm.momentum = 0.0  # the kept statistics stay
        for batch in batches:
            run(batch)
    found = {}
    for name, parts in sums.items():
        total = torch.stack(parts)
        dist.all_reduce(total)
        if total[2].any():
            found[name] = total[0] / total[2], total[1] / total[2]
    return found


def _watch(sums: list[Tensor], norm: Any, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0].float()
    # Batch norm refuses one value per channel. Frozen norms in training get
    # such maps, and images without proposals give none at all.
    norm.training = x.numel() > x.shape[1]
    if norm.training:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = torch.var_mean(x, axes)
        sums[0] += mean
        sums[1] += var
        sums[2] += 1


def _quantizers(model: nn.Module) -> list[BaseQuantizer]:
    return [m for m in model.modules() if isinstance(m, BaseQuantizer)]


@contextmanager
def _without_rounding(model: nn.Module) -> Iterator[None]:
    quantizers = _quantizers(model)
    for quantizer in quantizers:
        quantizer.observer = PassThrough()
        quantizer.reset_slot()
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.observer = None
            quantizer.reset_slot()
