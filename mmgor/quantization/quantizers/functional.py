"""Uniform quantization as pure functions: here numbers are rounded.

:func:`fake_quantize` rounds the weights and inputs of LSQ, LSQ+ and MinMax.
:func:`pact` rounds the inputs of PACT and DoReFa, and :func:`dorefa_weight`
the weights of DoReFa. :func:`fake_quantize` and :func:`dorefa_weight` round
with :func:`round_ste`, so that gradients pass; :func:`pact` has a
straight-through gradient of its own.

The functions only use differentiable torch operations, so they can be compiled
and exported. In training, ``compiled.py`` runs each as one kernel, with the
gradients in closed form that stand behind them here.
"""

import math

import torch
from torch import Tensor

# Smallest scale; smaller values that the optimizer may reach count as this.
MIN_SCALE = 1e-8


def integer_range(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """The range of integers that ``bits`` can hold.

    Args:
        bits (int): Number of bits, 2 to 8.
        signed (bool): Whether negative integers are in the range.
        narrow (bool): Leave out the most negative integer of a signed range.
            The range is then symmetric and allows a change of sign, as when a
            batch norm with a negative gamma is folded.

    Returns:
        tuple[int, int]: Smallest and largest integer.

    Example:
        >>> integer_range(4, signed=True, narrow=True)
        (-7, 7)
        >>> integer_range(4, signed=False, narrow=False)
        (0, 15)
    """
    if not signed:
        return 0, 2**bits - 1
    highest = 2 ** (bits - 1) - 1
    return (-highest if narrow else -highest - 1), highest


def round_ste(x: Tensor) -> Tensor:
    """Round half to even, with the straight-through gradient (1 everywhere).

    The result is exactly the rounded value, since ``x - x.detach()`` is 0.

    Example:
        >>> x = torch.tensor([0.5, 1.5, -2.4], requires_grad=True)
        >>> round_ste(x).tolist()
        [0.0, 2.0, -2.0]
        >>> round_ste(x).sum().backward()
        >>> x.grad.tolist()
        [1.0, 1.0, 1.0]
    """
    return x.round() + (x - x.detach())


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    qmin: Tensor,
    qmax: Tensor,
) -> Tensor:
    """Round to integers in [qmin, qmax] and back, differentiably.

    With ``offset`` 0 this is LSQ (Esser et al., ICLR 2020, eq. 1-3), else
    LSQ+ (Bhalgat et al., CVPRW 2020, eq. 1-5) with one change: the offset is
    rounded to a whole number of steps (straight-through), so that zero is
    represented exactly. Zero padding needs that, and so does an integer zero
    point at export.

    Args:
        x (Tensor): Any shape and floating dtype.
        scale (Tensor): Step size in units of ``x``, broadcastable. Values
            below ``MIN_SCALE`` count as ``MIN_SCALE``.
        offset (Tensor, optional): Value of the integer 0 in units of ``x``,
            broadcastable. Default: 0.
        qmin (Tensor): Smallest integer, shape ().
        qmax (Tensor): Largest integer, shape ().

    Returns:
        Tensor: ``scale * (q + round(offset / scale))`` with integers ``q`` in
        [qmin, qmax], shape and dtype of ``x``.

    Example:
        Steps of 0.5 in [-8, 7]: 0.7 / 0.5 = 1.4 becomes 1, and 9 is clipped.

        >>> x = torch.tensor([0.7, -1.0, 9.0])
        >>> low, high = torch.tensor(-8), torch.tensor(7)
        >>> fake_quantize(x, torch.tensor(0.5), None, low, high).tolist()
        [0.5, -1.0, 3.5]
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
    """The gradients of :func:`fake_quantize` in closed form.

    Autograd would keep four intermediate tensors of the size of ``x``. These
    formulas only need ``x``. Inside the range the output moves with ``x``;
    outside it moves with the offset.

    Args:
        grad (Tensor): Gradient of the output, shape of ``x``.
        x, scale, offset, qmin, qmax (Tensor): As in :func:`fake_quantize`,
            with ``x`` of shape (N, ) or (C, N) and one scale per row.

    Returns:
        tuple[Tensor, Tensor, Tensor | None]: Gradients of ``x`` (with its
        shape and dtype), of ``scale`` and of ``offset`` (None without an
        offset). The latter two are summed over the last axis.
    """
    grad_out, value = grad.float(), x.float()
    scale = at_least(scale, MIN_SCALE)
    shift = 0.0 if offset is None else torch.round(offset / scale)
    steps = value / scale  # the only division per value, which is slow
    levels = steps - shift
    inside = (levels >= qmin) & (levels <= qmax)
    grad_x = torch.where(inside, grad_out, 0.0)
    integer = torch.round(torch.clamp(levels, qmin, qmax)) + shift
    outside = 0.0 if offset is None else offset / scale
    moved = torch.where(inside, steps, outside)
    grad_scale = (grad_out * (integer - moved)).sum(-1)
    grad_offset = None if offset is None else (grad_out - grad_x).sum(-1)
    return grad_x.to(x.dtype), grad_scale, grad_offset


def lsq_gradient_factor(num_elements: int, qmax: int) -> float:
    """LSQ's gradient scale of the step size, 1 / sqrt(N * Q_p).

    Esser et al., ICLR 2020, section 2.2. It is computed in Python, without
    the accelerator, and rounded as float32 would round it.

    Args:
        num_elements (int): Number N of elements that share one scale.
        qmax (int): Largest integer Q_p.

    Example:
        >>> lsq_gradient_factor(4, 1)
        0.5
    """
    product = _float32(_float32(max(num_elements, 1)) * qmax)
    return _float32(1 / _float32(math.sqrt(product)))


def _float32(value: float) -> float:
    """The float32 number nearest to ``value``."""
    if torch.compiler.is_dynamo_compiling():  # the sizes may be symbols
        return value
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, 24)), exponent - 24)


def at_least(x: Tensor, low: float) -> Tensor:
    """``x``, raised to ``low`` where it is smaller.

    The gradient passes everywhere, so that a value below ``low`` can grow
    again.
    """
    return x + (x.clamp(min=low) - x).detach()


def pact(x: Tensor, alpha: Tensor, qmin: Tensor, qmax: Tensor) -> Tensor:
    """PACT (Choi et al., 2018, eq. 1-3) with a signed variant.

    ``x`` is clipped to ``[0, alpha]`` (``[-alpha, alpha]`` if ``qmin`` is
    negative) and rounded to steps of ``alpha / qmax``. The derivative with
    respect to ``alpha`` is 1 where ``x`` was above the range, -1 where it was
    below, and 0 inside. With respect to ``x`` it is 1 inside and 0 outside.

    Args:
        x (Tensor): Any shape.
        alpha (Tensor): Clipping level in units of ``x``, shape ().
        qmin (Tensor): Smallest integer, shape ().
        qmax (Tensor): Largest integer, shape ().

    Returns:
        Tensor: Shape and dtype of ``x``.
    """
    alpha = alpha.float().clamp(min=MIN_SCALE)
    scale = alpha.detach() / qmax.float()
    lower = torch.where(qmin < 0, -alpha, torch.zeros_like(alpha))
    value = x.float()
    # Unlike those of minimum and maximum, these gradients count a value on a
    # bound as inside.
    raised = torch.where(value < lower, lower, value)
    clipped = torch.where(value > alpha, alpha, raised)
    levels = torch.clamp(
        (clipped / scale).detach().round(), qmin.float(), qmax.float()
    )
    return (levels * scale + (clipped - clipped.detach())).to(x.dtype)


def pact_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, qmin: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of :func:`pact` in closed form.

    Autograd would keep several tensors of the size of ``x``. These formulas
    only need ``x``. A value on a bound counts as inside.

    Args:
        grad (Tensor): Gradient of the output, shape of ``x``.
        x, alpha, qmin (Tensor): As in :func:`pact`, with ``x`` of shape
            (N, ).

    Returns:
        tuple[Tensor, Tensor]: Gradients of ``x`` (with its shape and dtype)
        and of ``alpha``, shape ().
    """
    grad_out, value = grad.float(), x.float()
    upper = alpha.float().clamp(min=MIN_SCALE)
    signed = qmin < 0
    above = value > upper
    below = value < torch.where(signed, -upper, 0.0)
    grad_x = torch.where(above | below, 0.0, grad_out)
    with_alpha = torch.where(above, grad_out, 0.0)
    against = torch.where(below & signed, grad_out, 0.0)
    grad_alpha = (with_alpha - against).sum(-1)
    return grad_x.to(x.dtype), torch.where(alpha < MIN_SCALE, 0.0, grad_alpha)


def weight_peak(weight: Tensor, per_channel: bool) -> Tensor:
    """Largest magnitude of a weight, per entry of its first axis or overall.

    The shape broadcasts with ``weight``.
    """
    axes = tuple(range(1 if per_channel else 0, weight.dim()))
    return weight.detach().float().abs().amax(axes, keepdim=True)


def dorefa_weight(weight: Tensor, qmax: Tensor, per_channel: bool) -> Tensor:
    """DoReFa weights (Zhou et al., 2016, eq. 9) on a symmetric grid.

    ``t = tanh(w) / max|tanh(w)|`` is rounded to multiples of ``1 / qmax`` and
    multiplied by ``max|w|``, which keeps the magnitude of a pretrained layer.
    The paper's grid has the range [-1, 1] and no zero; it only suits training
    from scratch.

    Args:
        weight (Tensor): Any shape.
        qmax (Tensor): Largest integer, shape ().
        per_channel (bool): One maximum per entry of the first axis, or one
            for the whole tensor (as in the paper).

    Returns:
        Tensor: Shape of ``weight``.
    """
    peak = weight_peak(weight, per_channel)
    unit = torch.tanh(weight.float()) / torch.tanh(peak).clamp(min=MIN_SCALE)
    return (round_ste(unit * qmax.float()) / qmax.float() * peak).to(
        weight.dtype
    )


def dorefa_weight_backward(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of :func:`dorefa_weight` in closed form:
    ``grad * max|w| / tanh(max|w|) * (1 - tanh(w)^2)``.

    Args:
        grad (Tensor): Gradient of the output, shape of ``weight``.
        weight (Tensor): Shape (C, N), with one maximum per row.

    Returns:
        Tensor: Shape and dtype of ``weight``.
    """
    peak = weight_peak(weight, per_channel=True)
    slope = peak / torch.tanh(peak).clamp(min=MIN_SCALE)
    bent = 1 - torch.tanh(weight.float()).square()
    return (grad.float() * slope * bent).to(weight.dtype)


def minmax_scale(
    low: Tensor, high: Tensor, qmin: Tensor, qmax: Tensor
) -> Tensor:
    """The step size that maps ``max(|low|, |high|)`` to the largest integer.

    Args:
        low (Tensor): Smallest value, any shape.
        high (Tensor): Largest value, same shape.
        qmin (Tensor): Smallest integer, shape (). If it is 0, ``low`` is
            ignored.
        qmax (Tensor): Largest integer, shape ().

    Returns:
        Tensor: Shape of ``low``, at least ``MIN_SCALE``.
    """
    peak = torch.where(qmin < 0, torch.maximum(low.abs(), high.abs()), high)
    return (peak / qmax.float()).clamp(min=MIN_SCALE)


def clip_step(peak: Tensor, qmax: Tensor) -> tuple[Tensor, Tensor]:
    """The step size that maps ``peak`` to the largest integer, and a zero
    point of 0, both in the shape of ``peak``."""
    scale = peak.float().clamp(min=MIN_SCALE) / qmax.float()
    return scale, torch.zeros_like(scale)
