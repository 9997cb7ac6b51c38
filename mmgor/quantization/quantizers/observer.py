"""What calibration remembers of a tensor, and the scale it makes of it."""

import torch
from mmengine import dist
from torch import Tensor

from . import functional

SAMPLES_PER_CALL = 1 << 12
SAMPLES_PER_CHANNEL = 1 << 9
NUM_CANDIDATES = 100


def check_finite(x: Tensor, what: str) -> None:
    """Refuse to choose a range for NaN or infinity.

    Raises:
        ValueError: If ``x`` has a non-finite value.
    """
    if not torch.isfinite(x).all():
        raise ValueError(
            f'{what} is not finite in calibration; expected finite weights '
            'and inputs. Check the checkpoint in load_from and the pictures.'
        )


class PassThrough:
    """Stands where an observer would: the quantizer leaves the tensor in
    float and nothing is remembered."""

    def update(self, x: Tensor, slot: int) -> None:
        """Nothing to remember."""


class RangeObserver:
    """Extremes and a random sample of an input, per slot and channel.

    Args:
        num_scales (int): Scales of the quantizer that is calibrated.
        channels (int): Scales a slot, one an entry of the second axis.
    """

    def __init__(self, num_scales: int, channels: int = 1) -> None:
        self.channels = channels
        self.samples: list[list[Tensor]] = [[] for _ in range(num_scales)]
        self.low = torch.full((num_scales,), float('inf'))
        self.high = torch.full((num_scales,), -float('inf'))
        self._generator = torch.Generator().manual_seed(0)

    def update(self, x: Tensor, slot: int) -> None:
        """Look at one call's tensor of any shape."""
        if x.numel() == 0:
            return
        rows, limit = x.detach().flatten()[None], SAMPLES_PER_CALL
        if self.channels > 1:
            rows = x.detach().transpose(0, 1).flatten(1)
            limit = SAMPLES_PER_CHANNEL
        start = slot * self.channels
        low, high, kept = self._look(rows.float(), limit)
        places = slice(start, start + self.channels)
        self.low[places] = torch.minimum(self.low[places], low)
        self.high[places] = torch.maximum(self.high[places], high)
        for i, row in enumerate(kept):
            self.samples[start + i].append(row)

    def _look(self, rows: Tensor, limit: int) -> tuple[Tensor, ...]:
        """Extremes and up to ``limit`` values of each row, on the CPU."""
        extremes = torch.stack(rows.aminmax(dim=1), 1)
        count, length = rows.shape
        if length > limit:
            # A generator of its own: calibration leaves the global one alone.
            index = torch.randint(
                length, (count, limit), generator=self._generator
            )
            rows = rows.gather(1, index.to(rows.device, non_blocking=True))
        # In one piece: each copy makes the host wait for an accelerator.
        seen = torch.cat([extremes, rows], 1).cpu()
        return seen[:, 0], seen[:, 1], seen[:, 2:]

    @property
    def seen(self) -> bool:
        """Whether every slot of the quantizer saw at least one tensor."""
        return all(self.samples)

    def reduce(self) -> None:
        """Make the extremes those of all ranks."""
        dist.all_reduce(self.low, 'min')
        dist.all_reduce(self.high, 'max')

    def rows(self) -> list[Tensor]:
        """One flat sample a slot."""
        return [torch.cat(calls) for calls in self.samples]


def best_scales(
    rows: list[Tensor],
    low: Tensor,
    high: Tensor,
    qmin: int,
    qmax: int,
    asymmetric: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scales (and offsets) of least squared quantization error.

    Candidates clip the range at ``k / NUM_CANDIDATES`` of its extremes. The
    errors are summed over all ranks, so that every rank chooses the same.

    Args:
        rows (list[Tensor]): One flat sample a scale; this rank's.
        low (Tensor): Smallest values over all ranks, shape (len(rows), ).
        high (Tensor): Largest values, same shape.
        qmin (int): Smallest integer.
        qmax (int): Largest integer.
        asymmetric (bool): Search an offset too (the range is not centred).

    Returns:
        tuple[Tensor, Tensor]: Scales and offsets, each (len(rows), ).
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

    Args:
        rows (Tensor): One row a channel, shape (C, N).
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
    """Summed squared error of each candidate, shape (NUM_CANDIDATES, )."""
    return torch.stack(
        [
            (functional.fake_quantize(row, scale, offset, qmin, qmax) - row)
            .square()
            .sum()
            for scale, offset in zip(scales, offsets)
        ]
    )
