"""Uniform quantization as pure functions.

Everything here is a composition of differentiable torch operations, so that
it can be compiled, exported and read. ``quantization.compiled`` holds the
fused versions that training uses.
"""

import math
from typing import Any

import torch
from torch import Tensor

# A scale never gets smaller than this, whatever the optimizer does to it.
MIN_SCALE = 1e-8


def integer_range(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """The integers that ``bits`` can hold.

    Args:
        bits (int): Number of bits, 2 to 8.
        signed (bool): Whether negative integers are in the range.
        narrow (bool): Leave out the most negative integer, so that the range
            is symmetric and survives a change of sign (folding a batch norm
            with negative gamma).

    Returns:
        tuple[int, int]: Smallest and largest integer.
    """
    if not signed:
        return 0, 2**bits - 1
    highest = 2 ** (bits - 1) - 1
    return (-highest if narrow else -highest - 1), highest


def round_ste(x: Tensor) -> Tensor:
    """Round half to even with the straight-through gradient (1 everywhere).

    The value is exactly the rounded one: ``x - x.detach()`` is zero.
    """
    return x.round() + (x - x.detach())


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    qmin: Tensor,
    qmax: Tensor,
) -> Tensor:
    """Quantize to integers in [qmin, qmax] and back, differentiably.

    With ``offset`` 0 this is LSQ (Esser et al., ICLR 2020, eq. 1-3), else
    LSQ+ (Bhalgat et al., CVPRW 2020, eq. 1-5) with one change: the offset is
    rounded to a whole number of steps (straight-through), so that zero is
    represented exactly. Zero padding needs that, and so does an integer zero
    point at export.

    Args:
        x (Tensor): Any shape and floating dtype.
        scale (Tensor): Step size in units of ``x``, broadcastable. Smaller
            values than ``MIN_SCALE`` count as that.
        offset (Tensor, optional): Value of the integer 0 in units of ``x``,
            broadcastable. Default: 0.
        qmin (Tensor): Smallest integer, shape ().
        qmax (Tensor): Largest integer, shape ().

    Returns:
        Tensor: ``scale * (q + round(offset / scale))``, shape and dtype of
        ``x``.
    """
    scale = at_least(scale, MIN_SCALE)
    shift = 0.0 if offset is None else round_ste(offset / scale)
    levels = torch.clamp(x.float() / scale - shift, qmin, qmax)
    return ((round_ste(levels) + shift) * scale).to(x.dtype)


def fake_quantize_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    qmin: Tensor,
    qmax: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of :func:`fake_quantize`, from ``x`` alone.

    Autograd would keep four intermediate tensors the size of ``x``; these
    closed forms keep none. Inside the range the output moves with ``x``;
    outside it moves with the offset.

    Args:
        grad (Tensor): Gradient of the output, shape of ``x``.
        x, scale, offset, qmin, qmax (Tensor): As in :func:`fake_quantize`,
            with ``x`` of shape (N, ) or (C, N) and one scale a row.

    Returns:
        tuple[Tensor, Tensor, Tensor | None]: Gradients of ``x`` (its shape
        and dtype), of ``scale`` and of ``offset``, if there is one, summed
        over the last axis.
    """
    grad_out, value = grad.float(), x.float()
    scale = at_least(scale, MIN_SCALE)
    shift = 0.0 if offset is None else torch.round(offset / scale)
    levels = value / scale - shift
    inside = (levels >= qmin) & (levels <= qmax)
    grad_x = torch.where(inside, grad_out, 0.0)
    integer = torch.round(torch.clamp(levels, qmin, qmax)) + shift
    outside = 0.0 if offset is None else offset
    moved = torch.where(inside, value, outside) / scale
    grad_scale = (grad_out * (integer - moved)).sum(-1)
    grad_offset = None if offset is None else (grad_out - grad_x).sum(-1)
    return grad_x.to(x.dtype), grad_scale, grad_offset


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor | float) -> Tensor:
        ctx.factor = factor  # neither comes from x nor has a gradient
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def scale_gradient(x: Tensor, factor: Tensor | float) -> Tensor:
    """Pass ``x`` through and multiply its gradient by ``factor``."""
    return _ScaleGradient.apply(x, factor)


def lsq_gradient_factor(num_elements: int, qmax: int) -> float:
    """LSQ's step-size gradient scale, 1 / sqrt(N * Q_p) (section 2.2).

    On the host, which knows both, but as float32 would round it.

    Args:
        num_elements (int): Elements that share one scale.
        qmax (int): Largest integer.
    """
    product = _float32(_float32(max(num_elements, 1)) * qmax)
    return _float32(1 / _float32(math.sqrt(product)))


def _float32(value: float) -> float:
    """The nearest number that float32 has."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, 24)), exponent - 24)


def at_least(x: Tensor, low: float) -> Tensor:
    """``x``, or ``low`` where it is smaller; the gradient passes everywhere,
    so that a value below is not stuck there."""
    return x + (x.clamp(min=low) - x).detach()


def exp_scale(log_scale: Tensor, factor: float) -> Tensor:
    """The step size ``s = exp(log_scale)`` with LSQ's gradient scale.

    Step sizes differ by orders of magnitude between layers, and an Adam step
    has the size of the learning rate: on ``s`` itself it would change a small
    one by a large part, in the log domain (as in TQT, Jain et al., MLSys
    2020) it is a relative change. The gradient is divided by ``s``, which
    makes it LSQ's ``factor * dL/ds`` in size: small enough not to dominate
    gradient clipping, and not vanishing with ``s``.

    Args:
        log_scale (Tensor): Any shape.
        factor (float): From :func:`lsq_gradient_factor`.

    Returns:
        Tensor: Shape of ``log_scale``, positive.
    """
    precondition = factor * torch.exp(-log_scale.detach())
    return torch.exp(scale_gradient(log_scale, precondition))


def pact(x: Tensor, alpha: Tensor, qmin: Tensor, qmax: Tensor) -> Tensor:
    """PACT (Choi et al., 2018, eq. 1-3) with a signed variant.

    ``x`` is clipped to ``[0, alpha]`` (``[-alpha, alpha]`` when ``qmin`` is
    negative) and rounded to steps of ``alpha / qmax``. The gradient to
    ``alpha`` is 1 where ``x`` was clipped from above, -1 from below, and 0
    inside; to ``x`` it is 1 inside.

    Args:
        x (Tensor): Any shape.
        alpha (Tensor): Clipping level in units of ``x``, shape ().
        qmin (Tensor): Smallest integer, shape ().
        qmax (Tensor): Largest integer, shape ().
    """
    alpha = alpha.float().clamp(min=MIN_SCALE)
    scale = alpha.detach() / qmax.float()
    lower = torch.where(qmin < 0, -alpha, torch.zeros_like(alpha))
    clipped = torch.minimum(torch.maximum(x.float(), lower), alpha)
    levels = torch.clamp(
        (clipped / scale).detach().round(), qmin.float(), qmax.float()
    )
    return (levels * scale + (clipped - clipped.detach())).to(x.dtype)


def weight_peak(weight: Tensor, per_channel: bool) -> Tensor:
    """Largest magnitude of each entry of the first axis, or of all, in a
    shape that broadcasts with ``weight``."""
    axes = tuple(range(1 if per_channel else 0, weight.dim()))
    return weight.detach().float().abs().amax(axes, keepdim=True)


def dorefa_weight(weight: Tensor, qmax: Tensor, per_channel: bool) -> Tensor:
    """DoReFa weights (Zhou et al., 2016, eq. 9) on a symmetric grid.

    ``t = tanh(w) / max|tanh(w)|`` is rounded to multiples of ``1 / qmax``
    and multiplied by ``max|w|``, which keeps the magnitude of a pretrained
    layer; the paper's grid (range [-1, 1], no zero) suits training from
    scratch only.

    Args:
        weight (Tensor): Any shape.
        qmax (Tensor): Largest integer, shape ().
        per_channel (bool): One maximum an entry of the first axis, or one
            for the whole tensor (as in the paper).

    Returns:
        Tensor: Shape of ``weight``.
    """
    peak = weight_peak(weight, per_channel)
    unit = torch.tanh(weight.float()) / torch.tanh(peak).clamp(min=MIN_SCALE)
    return (round_ste(unit * qmax.float()) / qmax.float() * peak).to(
        weight.dtype
    )


def minmax_scale(
    low: Tensor, high: Tensor, qmin: Tensor, qmax: Tensor
) -> Tensor:
    """The step that puts ``max(|low|, |high|)`` on the largest integer.

    Args:
        low (Tensor): Smallest value, any shape.
        high (Tensor): Largest value, same shape.
        qmin (Tensor): Smallest integer, shape (). 0 ignores ``low``.
        qmax (Tensor): Largest integer, shape ().
    """
    peak = torch.where(qmin < 0, torch.maximum(low.abs(), high.abs()), high)
    return (peak / qmax.float()).clamp(min=MIN_SCALE)


def clip_step(peak: Tensor, qmax: Tensor) -> tuple[Tensor, Tensor]:
    """The step that puts ``peak`` on the largest integer; no zero point."""
    scale = peak.float().clamp(min=MIN_SCALE) / qmax.float()
    return scale, torch.zeros_like(scale)
