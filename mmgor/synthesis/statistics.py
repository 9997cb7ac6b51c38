"""How far a batch is from what the batch norms of a network remember."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.quantization.norms import norms_with_statistics


def statistics_loss(
    mean: Tensor,
    var: Tensor,
    kept_mean: Tensor,
    kept_var: Tensor,
    eps: float = 1e-5,
) -> Tensor:
    """Squared distance of means and deviations, in kept standard deviations.

    The mean over channels of ((m - m') / s')^2 + (s / s' - 1)^2, with the
    mean m and the standard deviation s of a batch, and m', s' those that a
    batch norm kept. Cai et al., "ZeroQ", CVPR 2020, equation 3, have the sum
    of the two squared distances; divided by s'^2, each layer and channel
    counts the same, whatever its scale.

    Args:
        mean (Tensor): Of the batch, shape (C,).
        var (Tensor): Of the batch, shape (C,).
        kept_mean (Tensor): Running mean, shape (C,).
        kept_var (Tensor): Running variance, shape (C,).
        eps (float): Of the batch norm, added to both variances.

    Returns:
        Tensor: Shape ().
    """
    kept = (kept_var + eps).sqrt()
    shift = (mean - kept_mean) / kept
    ratio = (var + eps).sqrt() / kept
    return (shift.square() + (ratio - 1).square()).mean()


class StatisticsRecorder:
    """Mean and variance of what each batch norm was given.

    A norm that is called several times per pass, as in a head that pyramid
    levels share, has the averages over its calls.
    """

    def __init__(self, norms: dict[str, Any]) -> None:
        self._norms = norms
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def forget(self) -> None:
        """Start a new pass."""
        self._seen.clear()

    def loss(self) -> Tensor:
        """The mean of :func:`statistics_loss` over all norms that ran.

        Raises:
            RuntimeError: If none ran.
        """
        terms = []
        for name, calls in self._seen.items():
            norm = self._norms[name]
            mean, var = (torch.stack(parts).mean(0) for parts in zip(*calls))
            terms.append(
                statistics_loss(
                    mean, var, norm.running_mean, norm.running_var, norm.eps
                )
            )
        if not terms:
            raise RuntimeError('no batch norm ran in the forward pass.')
        return torch.stack(terms).mean()

    def watch(self, name: str, norm: Any, inputs: tuple[Tensor, ...]) -> None:
        """A forward pre-hook."""
        x = inputs[0]
        axes = [axis for axis in range(x.dim()) if axis != 1]
        mean = x.mean(axes, keepdim=True)
        # On a CPU, a third of the time that torch.var_mean takes.
        var = (x - mean).square().mean(axes)
        self._seen.setdefault(name, []).append((mean.flatten(), var))


def matched_norms(model: nn.Module) -> dict[str, Any]:
    """Path -> module of the batch norms whose statistics images can match.

    Raises:
        ValueError: If the model has none.
    """
    norms = norms_with_statistics(model)
    if not norms:
        others = sorted(
            {
                type(module).__name__
                for module in model.modules()
                if 'Norm' in type(module).__name__
            }
        )
        raise ValueError(
            'images are synthesised from the running statistics of batch '
            'norms: expected a detector that has some, got one with '
            f'{", ".join(others) or "no norms"}. Type the config and the '
            "checkpoint of a detector with norm_cfg=dict(type='BN')."
        )
    return norms


@contextmanager
def recorded_statistics(model: nn.Module) -> Iterator[StatisticsRecorder]:
    """Record in the block what reaches each batch norm.

    Checkpointing (``with_cp=True``) is off in the block: it runs layers
    without gradients first, so that the statistics would be constants.

    Args:
        model (nn.Module): In evaluation mode.

    Yields:
        StatisticsRecorder: Of the passes in the block.

    Raises:
        ValueError: If the model has no batch norm with statistics.
    """
    norms = matched_norms(model)
    recorder = StatisticsRecorder(norms)
    with ExitStack() as stack:
        module: Any
        for module in model.modules():
            if getattr(module, 'with_cp', False):
                stack.callback(setattr, module, 'with_cp', module.with_cp)
                module.with_cp = False
        for name, norm in norms.items():
            watch = partial(recorder.watch, name)
            stack.callback(norm.register_forward_pre_hook(watch).remove)
        yield recorder
