"""Batch norm under rounding: statistics that are kept, or made to fit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmgor.quantization.quantizers.base import (
    quantizers_of,
    without_rounding,
)
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


@contextmanager
def correct_norms(
    model: nn.Module, batches: Sequence[Any], run: Callable[[Any], Any]
) -> Iterator[dict[str, float]]:
    """Let every batch norm expect what rounded layers give it.

    Quantizers are calibrated in the block, and weights may change. A float
    network's statistics do not fit then, and what does not fit adds up from
    layer to layer. So each batch runs twice, without rounding before the block
    and with rounding after it. The running mean moves by the difference of the
    two means, and the running variance is multiplied by the ratio of the two
    variances. What the float network knows of all its training images stays,
    and 8 bits change little. In both runs a batch norm normalizes with its own
    batch, so that a layer does not see the errors of those before it twice.

    Others take new statistics from the rounded network alone (Chen et al.,
    "AQD", CVPR 2021) or correct means (Nagel et al., "Data-Free Quantization
    Through Weight Equalization and Bias Correction", ICCV 2019).

    Args:
        model (nn.Module): With the weights and statistics of a float network.
            Statistics that come from training with rounding would be corrected
            a second time. They are changed in place.
        batches (Sequence): Arguments of ``run``. In a distributed run, every
            rank has as many.
        run (Callable): Runs the model on one batch, in training mode.

    Yields:
        dict[str, float]: After the block, path of a batch norm that had inputs
        -> root mean square over its channels of the change of its mean, in
        standard deviations.
    """
    moved: dict[str, float] = {}
    with without_rounding(model):
        plain = _moments(model, batches, run)
    yield moved
    rounded = _moments(model, batches, run)
    for name, norm in norms_with_statistics(model).items():
        if name not in plain or name not in rounded:
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


def _bounded(factor: Tensor) -> Tensor:
    return factor.clamp(1 / _LARGEST, _LARGEST)


@torch.no_grad()
def _moments(
    model: nn.Module, batches: Sequence[Any], run: Callable[[Any], Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Path -> mean and variance of each channel that reaches a batch norm, as
    averages over its calls; none for norms without calls."""
    norms = norms_with_statistics(model)
    # Means, variances, number of calls.
    sums = {
        name: [torch.zeros_like(n.running_mean) for _ in range(3)]
        for name, n in norms.items()
    }
    with batch_statistics(model), ExitStack() as stack:
        for name, norm in norms.items():
            watch = partial(_watch, sums[name])
            handle = norm.register_forward_pre_hook(watch)
            stack.callback(handle.remove)
        for batch in batches:
            run(batch)
    found = {}
    for name, parts in sums.items():
        total = torch.stack(parts)
        dist.all_reduce(total)
        if total[2].any():
            found[name] = total[0] / total[2], total[1] / total[2]
    return found


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """In the block, the model runs as in training, and every batch norm
    normalizes with its own batch, frozen ones too. All is put back
    afterwards, random states as well, so that two runs drop the same
    features."""
    with trial_run(model), ExitStack() as stack:
        for norm in norms_with_statistics(model).values():
            handle = norm.register_forward_pre_hook(_use_batch)
            stack.callback(handle.remove)
            stack.callback(setattr, norm, 'momentum', norm.momentum)
            norm.momentum = 0.0  # the kept statistics stay
        try:
            yield
        finally:
            for quantizer in quantizers_of(model):
                quantizer.forget_calls()


def _use_batch(norm: Any, inputs: tuple[Tensor, ...]) -> None:
    # Batch norm refuses one value per channel. Frozen norms in training get
    # such maps, and images without proposals give none at all.
    norm.training = inputs[0].numel() > inputs[0].shape[1]


def _watch(sums: list[Tensor], norm: Any, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0].float()
    if norm.training:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = torch.var_mean(x, axes)
        sums[0] += mean
        sums[1] += var
        sums[2] += 1
