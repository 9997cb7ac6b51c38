"""Batch norm under rounding: statistics that are kept, or made to fit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.quantization.quantizers.observer import PassThrough
from mmgor.registry import MODELS
from mmgor.trial_run import trial_run

# A variance is multiplied by at most this, and divided by at most this: a
# channel that rounding silences must not be amplified without bound.
_MOST = 10.0


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
        model (nn.Module): Calibrated; its statistics are changed in place.
        batches (Sequence): Arguments of ``run``. In a distributed run, every
            rank has as many.
        run (Callable): Runs the model on one batch, in training mode.

    Returns:
        dict[str, float]: Path of a batch norm -> root mean square over its
        channels of the change of its mean, in standard deviations.
    """
    norms: dict[str, Any] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_var is not None
    }
    with _without_rounding(model):
        plain = _statistics(model, norms, batches, run)
    rounded = _statistics(model, norms, batches, run)
    moved = {}
    for name, norm in norms.items():
        (mean, var), (new_mean, new_var) = plain[name], rounded[name]
        ratio = (new_var + norm.eps) / (var + norm.eps)
        # The kept statistics may be those of other images.
        unit = ((norm.running_var + norm.eps) / (var + norm.eps)).sqrt()
        shift = (new_mean - mean) * unit
        moved[name] = _root_mean_square(
            shift / (norm.running_var + norm.eps).sqrt()
        )
        norm.running_mean += shift
        norm.running_var *= ratio.clamp(1 / _MOST, _MOST)
    return moved


def _statistics(
    model: nn.Module,
    norms: dict[str, Any],
    batches: Sequence[Any],
    run: Callable[[Any], Any],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Path -> mean and variance of what reaches a batch norm."""
    momenta = {name: norm.momentum for name, norm in norms.items()}
    # It puts random states back, so that both runs drop the same features.
    with trial_run(model):
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # the average over all batches
            norm.training = True  # EvalBN and frozen stages, too
        try:
            for batch in batches:
                run(batch)
        finally:
            for name, norm in norms.items():
                norm.momentum = momenta[name]
        found = {}
        for name, norm in norms.items():
            both = torch.stack([norm.running_mean, norm.running_var])
            dist.all_reduce(both, 'mean')
            found[name] = both[0], both[1]
    return found


@contextmanager
def _without_rounding(model: nn.Module) -> Iterator[None]:
    quantizers = [m for m in model.modules() if isinstance(m, BaseQuantizer)]
    for quantizer in quantizers:
        quantizer.observer = PassThrough()
        quantizer.reset_slot()
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.observer = None
            quantizer.reset_slot()


def _root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
