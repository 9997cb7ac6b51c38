"""Observers collect statistics of tensors; a search turns them into scales.

Calibration puts an observer into each quantizer, runs a few batches and calls
:func:`best_scales` (inputs) and :func:`best_row_scales` (weights).
"""

import torch
from mmengine import dist
from torch import Tensor

from . import functional

SAMPLES_PER_CALL = 1 << 12
SAMPLES_PER_CHANNEL = 1 << 9
NUM_CANDIDATES = 100


def check_finite(x: Tensor, what: str) -> None:
    """Refuse NaN and infinity, for which no range can be chosen.

    Args:
        x (Tensor): Any shape.
        what (str): Name of the tensor, for the message.

    Raises:
        ValueError: If ``x`` has a non-finite value.
    """
    if not torch.isfinite(x).all():
        raise ValueError(
            f'{what} is not finite in calibration; expected finite weights '
            'and inputs. Check the checkpoint in load_from and the images.'
        )


class PassThrough:
    """An observer that records nothing. Its quantizer leaves the tensor in
    float."""

    def update(self, x: Tensor, slot: int) -> None:
        """Record nothing."""


class RangeObserver:
    """Records extremes and a random sample of an input, per scale.

    Args:
        num_scales (int): Number of scales of the quantizer.
        channels (int): Scales per slot, one per entry of the second axis.
    """

    def __init__(self, num_scales: int, channels: int = 1) -> None:
        self.channels = channels
        self.samples: list[list[Tensor]] = [[] for _ in range(num_scales)]
        self.low = torch.full((num_scales,), float('inf'))
        self.high = torch.full((num_scales,), -float('inf'))
        self._generator = torch.Generator().manual_seed(0)

    def update(self, x: Tensor, slot: int) -> None:
        """Record the tensor of one call.

        Args:
            x (Tensor): Any shape.
            slot (int): Index of the call in a forward pass.
        """
        if x.numel() == 0:
            return
        rows, limit = x.detach().flatten()[None], SAMPLES_PER_CALL
        if self.channels > 1:
            rows = x.detach().transpose(0, 1).flatten(1)
            limit = SAMPLES_PER_CHANNEL
        start = slot * self.channels
        low, high, kept = self._look(rows.float(), limit)
        own = slice(start, start + self.channels)
        self.low[own] = torch.minimum(self.low[own], low)
        self.high[own] = torch.maximum(self.high[own], high)
        for i, row in enumerate(kept):
            self.samples[start + i].append(row)

    def _look(self, rows: Tensor, limit: int) -> tuple[Tensor, ...]:
        """Minimum, maximum and up to ``limit`` values per row, on the CPU."""
        extremes = torch.stack(rows.aminmax(dim=1), 1)
        count, length = rows.shape
        if length > limit:
            # Calibration must not draw from the global random generator.
            index = torch.randint(
                length, (count, limit), generator=self._generator
            )
            rows = rows.gather(1, index.to(rows.device, non_blocking=True))
        # One copy, because each makes the host wait for an accelerator.
        seen = torch.cat([extremes, rows], 1).cpu()
        return seen[:, 0], seen[:, 1], seen[:, 2:]

    @property
    def seen(self) -> bool:
        """Whether there is a sample for every scale."""
        return all(self.samples)

    def reduce(self) -> None:
        """Replace the extremes by those over all ranks."""
        dist.all_reduce(self.low, 'min')
        dist.all_reduce(self.high, 'max')

    def rows(self) -> list[Tensor]:
        """One flat sample per scale."""
        return [torch.cat(calls) for calls in self.samples]


def best_scales(
    rows: list[Tensor],
    low: Tensor,
    high: Tensor,
    qmin: int,
    qmax: int,
    asymmetric: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scales (and offsets) with the least squared quantization error.

    The candidates clip the range at ``k / NUM_CANDIDATES`` of its extremes,
    ``k = 1 ... NUM_CANDIDATES``. Errors are summed over all ranks, so that all
    ranks choose the same scales.

    Args:
        rows (list[Tensor]): One flat sample per scale, from this rank.
        low (Tensor): Smallest values over all ranks, shape (len(rows), ).
        high (Tensor): Largest values, same shape.
        qmin (int): Smallest integer.
        qmax (int): Largest integer.
        asymmetric (bool): Also search for an offset, for ranges that are not
            centred.

    Returns:
        tuple[Tensor, Tensor]: Scales and offsets in units of the sample, each
        of shape (len(rows), ).
    """
    shares = torch.arange(1, NUM_CANDIDATES + 1) / NUM_CANDIDATES
    bounds = torch.tensor(float(qmin)), torch.tensor(float(qmax))
    low, high = low.cpu().clamp(max=0), high.cpu().clamp(min=0)
    if asymmetric:
        scales = shares[:, None] * (high - low) / (qmax - qmin)
        offsets = shares[:, None] * low - qmin * scales
    else:
        scales = shares[:, None] * functional.minmax_scale(low, high, *bounds)
        offsets = torch.zeros_like(scales)
    scales = scales.clamp(min=functional.MIN_SCALE)
    errors = torch.stack(
        [
            _errors(row, scales[:, i], offsets[:, i], *bounds)
            for i, row in enumerate(rows)
        ],
        1,
    )
    dist.all_reduce(errors, 'sum')
    best = errors.argmin(0, keepdim=True)
    return scales.gather(0, best)[0], offsets.gather(0, best)[0]


def best_row_scales(rows: Tensor, qmin: int, qmax: int) -> Tensor:
    """:func:`best_scales` for all channels of a weight at once.

    It runs on the device of the weight. Offsets are 0.

    Args:
        rows (Tensor): One row per channel, shape (C, N).
        qmin (int): Smallest integer.
        qmax (int): Largest integer.

    Returns:
        Tensor: Scales of shape (C, ).
    """
    bounds = rows.new_full((), qmin), rows.new_full((), qmax)
    full = functional.minmax_scale(rows.amin(1), rows.amax(1), *bounds)
    best = full.clone()
    best_error = torch.full_like(full, float('inf'))
    for k in range(1, NUM_CANDIDATES + 1):
        scale = (full * k / NUM_CANDIDATES).clamp(min=functional.MIN_SCALE)
        column = scale[:, None]
        quantized = functional.fake_quantize(
            rows, column, torch.zeros_like(column), *bounds
        )
        error = (quantized - rows).square().sum(1)
        better = error < best_error
        best = torch.where(better, scale, best)
        best_error = torch.where(better, error, best_error)
    return best


def _errors(
    row: Tensor, scales: Tensor, offsets: Tensor, qmin: Tensor, qmax: Tensor
) -> Tensor:
    """Sum of squared errors of each candidate, shape (NUM_CANDIDATES, )."""
    return torch.stack(
        [
            (functional.fake_quantize(row, scale, offset, qmin, qmax) - row)
            .square()
            .sum()
            for scale, offset in zip(scales, offsets)
        ]
    )
