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
#: Numbers that the search for weight scales works on at once, on a CPU.
BLOCK = 1 << 16


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

    def update(self, x: Tensor, slot: int) -> Tensor:
        """Return the tensor."""
        return x


class WeightGradient:
    """An observer that passes a weight on and takes its gradient, over all
    calls of a forward pass.

    Attributes:
        added (Tensor, optional): Zeros in the shape of the weight, which are
            added to it; their gradient is that of the weight.
    """

    def __init__(self) -> None:
        self.added: Tensor | None = None

    def update(self, x: Tensor, slot: int) -> Tensor:
        """Return the weight, through which a gradient reaches ``added``."""
        if self.added is None:
            self.added = torch.zeros_like(x, requires_grad=True)
        return x.detach() + self.added


class RangeObserver:
    """Records extremes and a random sample of an input, per scale.

    ``counts`` has the number of values that each scale saw.

    Args:
        num_scales (int): Number of scales of the quantizer.
        channels (int): Scales per slot, one per entry of the second axis.
        follow (bool): Let gradients reach the tensors that are passed on;
            :meth:`take_gradients` then weighs the sample by them.
    """

    def __init__(
        self, num_scales: int, channels: int = 1, follow: bool = False
    ) -> None:
        self.channels = channels
        self.samples: list[list[Tensor]] = [[] for _ in range(num_scales)]
        self.squares: list[list[Tensor]] = [[] for _ in range(num_scales)]
        self.followed: list[tuple[Tensor, Tensor | None, int]] = []
        self.counts = [0] * num_scales
        self._follow = follow
        self.low = torch.full((num_scales,), float('inf'))
        self.high = torch.full((num_scales,), -float('inf'))
        self._generator = torch.Generator().manual_seed(0)

    def update(self, x: Tensor, slot: int) -> Tensor:
        """Record the tensor of one call.

        Args:
            x (Tensor): Any shape.
            slot (int): Index of the call in a forward pass.

        Returns:
            Tensor: The tensor, or one of the same values to follow.
        """
        if x.numel() == 0:
            return x
        start = slot * self.channels
        own = slice(start, start + self.channels)
        rows = self._rows(x)
        for i in range(start, start + self.channels):
            self.counts[i] += rows.shape[1]
        low, high = rows.aminmax(dim=1)
        index = self._choose(rows)
        kept = rows if index is None else rows.gather(1, index)
        # One copy, because each makes the host wait for an accelerator.
        seen = torch.cat([low[:, None], high[:, None], kept], 1).cpu()
        self.low[own] = torch.minimum(self.low[own], seen[:, 0])
        self.high[own] = torch.maximum(self.high[own], seen[:, 1])
        for i, row in enumerate(seen[:, 2:]):
            self.samples[start + i].append(row)
        if self._follow:
            # Behind frozen layers, nothing asks for a gradient yet.
            source = x if x.requires_grad else x.detach().requires_grad_()
            x = source.clone()
            self.followed.append((x, index, start))
        return x

    def _rows(self, x: Tensor) -> Tensor:
        """One row per scale, float32."""
        rows = x.detach().flatten()[None]
        if self.channels > 1:
            rows = x.detach().transpose(0, 1).flatten(1)
        return rows.float()

    def _choose(self, rows: Tensor) -> Tensor | None:
        """Which values of each row to keep; None for all."""
        count, length = rows.shape
        limit = SAMPLES_PER_CHANNEL if self.channels > 1 else SAMPLES_PER_CALL
        if length <= limit:
            return None
        # Calibration must not draw from the global random generator.
        index = torch.randint(
            length, (count, limit), generator=self._generator
        )
        return index.to(rows.device, non_blocking=True)

    def take_gradients(self, gradients: list[Tensor | None]) -> None:
        """Keep the squared gradients of the samples.

        Args:
            gradients (list[Tensor | None]): One per tensor in ``followed``,
                in that order; None for a tensor that the loss ignores.
        """
        for gradient, (x, index, start) in zip(gradients, self.followed):
            known = torch.zeros_like(x) if gradient is None else gradient
            rows = self._rows(known)
            kept = rows if index is None else rows.gather(1, index)
            for i, row in enumerate(kept.square().cpu()):
                self.squares[start + i].append(row)
        self.followed.clear()

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

    def importance(self) -> list[Tensor] | None:
        """The squared gradients of each row's values, if they were taken.
        They are ones for a row whose gradients are all 0."""
        if not all(self.squares):
            return None
        rows = [torch.cat(calls) for calls in self.squares]
        return [row if row.any() else torch.ones_like(row) for row in rows]


def best_scales(
    rows: list[Tensor],
    low: Tensor,
    high: Tensor,
    qmin: int,
    qmax: int,
    asymmetric: bool = False,
    importance: list[Tensor] | None = None,
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
        importance (list[Tensor], optional): Weights of the squared errors, in
            the shapes of ``rows``. Default: all alike.

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
    weights = importance or [torch.ones(()) for _ in rows]
    errors = torch.stack(
        [
            _errors(row, weight, scales[:, i], offsets[:, i], *bounds)
            for i, (row, weight) in enumerate(zip(rows, weights))
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
    # Blocks that stay in a CPU's cache are faster than all rows at once.
    length = max(1, BLOCK // max(1, rows.shape[1]))
    blocks = rows.split(length) if rows.device.type == 'cpu' else [rows]
    return torch.cat([_best_of_block(block, qmin, qmax) for block in blocks])


def _best_of_block(rows: Tensor, qmin: int, qmax: int) -> Tensor:
    bounds = rows.new_full((), qmin), rows.new_full((), qmax)
    full = functional.minmax_scale(rows.amin(1), rows.amax(1), *bounds)
    best = full.clone()
    best_error = torch.full_like(full, float('inf'))
    error = torch.empty_like(rows)
    for k in range(1, NUM_CANDIDATES + 1):
        scale = (full * k / NUM_CANDIDATES).clamp(min=functional.MIN_SCALE)
        column = scale[:, None]
        # fake_quantize, less its gradient: in place, four times as fast.
        torch.div(rows, column, out=error).round_().clamp_(qmin, qmax)
        squared = error.mul_(column).sub_(rows).square_().sum(1)
        better = squared < best_error
        best = torch.where(better, scale, best)
        best_error = torch.where(better, squared, best_error)
    return best


def _errors(
    row: Tensor,
    weight: Tensor,
    scales: Tensor,
    offsets: Tensor,
    qmin: Tensor,
    qmax: Tensor,
) -> Tensor:
    """Sum of squared errors of each candidate, shape (NUM_CANDIDATES, )."""
    return torch.stack(
        [
            (functional.fake_quantize(row, scale, offset, qmin, qmax) - row)
            .square()
            .mul(weight)
            .sum()
            for scale, offset in zip(scales, offsets)
        ]
    )
