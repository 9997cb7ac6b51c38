"""The roundings of ``functional.py`` as compiled kernels, for training.

``torch.compile`` turns ``fake_quantize`` and ``fake_quantize_backward`` of
``functional.py`` into one kernel each, which reads and writes a tensor once.
Tensors are first flattened to one axis (one scale) or to two (one scale per
row), so that a handful of compiled variants serves every layer and every image
size. Where nothing can be compiled the plain functions run, and a warning says
so once. ``pact`` and ``dorefa_weight`` are compiled in the same way.
"""

import logging
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import functional

# Signedness and dtype make variants of one function. With torch's default
# limit of 8, a mixed network would silently run uncompiled.
_MAX_VARIANTS = 64


class _Fused:
    """A function that is compiled on first use, or runs as it is if it can't
    be compiled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self._compiled is None:
            self._compiled = _compile(self.function)
        try:
            return self._compiled(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = getattr(error, 'inner_exception', error)
            if _is_out_of_memory(cause):
                raise
            # Raises the plain error if the arguments are at fault.
            result = self.function(*args)
            self._compiled = self.function
            _warn(self.function.__name__, cause)
            return result


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for tensors of any size.

    The limit on variants is that of this function. An older torch has one for
    the whole process: it is raised here, and never lowered.
    """
    options: dict[str, Any] = dict(dynamic=True)
    if 'recompile_limit' in signature(torch.compile).parameters:
        options['recompile_limit'] = _MAX_VARIANTS
    else:
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, _MAX_VARIANTS)
    return torch.compile(function, **options)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether only memory was missing, so that the next call may succeed.

    This is about memory while compiling. While a kernel runs, a full device
    raises ``torch.OutOfMemoryError``, which is not one of dynamo's errors.
    """
    # Triton reports it as a RuntimeError.
    full = 'out of memory' in str(error)
    return full or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def _warn(name: str, error: Exception) -> None:
    reason = next(iter(str(error).splitlines()), '')
    print_log(
        f'{name} could not be compiled ({type(error).__name__}: {reason}); '
        'quantizers run uncompiled, several times slower. If a compiler is '
        'missing, install a C++ compiler (CPU) or triton (GPU).',
        logger='current',
        level=logging.WARNING,
    )


_forward = _Fused(functional.fake_quantize)
_backward = _Fused(functional.fake_quantize_backward)
_pact = _Fused(functional.pact)
_pact_backward = _Fused(functional.pact_backward)
_dorefa = _Fused(functional.dorefa_weight)
_dorefa_backward = _Fused(functional.dorefa_weight_backward)
_minmax_scale = _Fused(functional.minmax_scale)


def _run_as_it_is(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that torch never compiles. In a compiled step it would
    read the saved tensors to do so, and a checkpoint allows one read."""
    return torch.compiler.disable(once_differentiable(backward))


class _FakeQuantize(torch.autograd.Function):
    """The two kernels as one operation, which keeps no tensor of the size of
    ``x`` but ``x`` itself."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        qmin: Tensor,
        qmax: Tensor,
        axis: int | None,
        log_scale: Tensor | None,
        factor: float,
        slot: int | None,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, offset, qmin, qmax)
        ctx.axis, ctx.factor, ctx.slot = axis, factor, slot
        ctx.num_scales = 0 if log_scale is None else log_scale.numel()
        rows, back = _rows(x, axis)
        rounded = _forward(
            rows,
            _per_row(scale, rows, axis),
            _per_row(_of_slot(offset, scale, slot), rows, axis),
            qmin,
            qmax,
        )
        # Autograd forbids changes in place of a view that is made here.
        return back(rounded).detach()

    @staticmethod
    @_run_as_it_is
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, offset, qmin, qmax = ctx.saved_tensors
        rows, back = _rows(x, ctx.axis)
        grad_x, *grads = _backward(
            _like_rows(grad, x, ctx.axis),
            rows,
            _per_row(scale, rows, ctx.axis),
            _per_row(_of_slot(offset, scale, ctx.slot), rows, ctx.axis),
            qmin,
            qmax,
        )
        _, of_scale, of_offset, *_, of_log_scale, _, _ = ctx.needs_input_grad
        grad_scale, grad_offset = (
            None if part is None else _per_scale(part, scale) for part in grads
        )
        found = _learned(
            grad_scale if of_log_scale else None,
            grad_offset if of_offset else None,
            ctx.factor,
            ctx.slot,
            ctx.num_scales,
        )
        return (
            back(grad_x),
            grad_scale if of_scale else None,
            found[1],
            *[None] * 3,
            found[0],
            *[None] * 2,
        )


def _of_slot(
    values: Tensor | None, scale: Tensor, slot: int | None
) -> Tensor | None:
    """The values of a slot, which has as many as ``scale``."""
    if values is None or slot is None:
        return values
    return values.view(-1, scale.numel())[slot]


def _learned(
    scale: Tensor | None,
    offset: Tensor | None,
    factor: float,
    slot: int | None,
    num_scales: int,
) -> list[Tensor | None]:
    """Gradients of what is learned, 0 in other slots. Autograd would select
    and fill each by itself."""
    if slot is None:
        return [None if g is None else g * factor for g in (scale, offset)]
    like = offset if scale is None else scale
    if like is None:
        return [None, None]
    found: list[Tensor | None] = []
    for grad, row in zip((scale, offset), like.new_zeros(2, num_scales)):
        if grad is not None:
            torch.mul(grad, factor, out=_of_slot(row, grad, slot))
        found.append(None if grad is None else row)
    return found


def _in_channels_last(x: Tensor) -> bool:
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _rows(
    x: Tensor, axis: int | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``x`` with one axis, in memory order, or with one row per scale, and
    the way back."""
    if axis != 1 and _in_channels_last(x):
        last = x.permute(0, 2, 3, 1)
        rows = last.flatten() if axis is None else last.flatten(1)
        return rows, lambda y: y.view(last.shape).permute(0, 3, 1, 2)
    if axis is None:
        rows = x.flatten()
    elif axis == 0:
        rows = x.flatten(1)
    else:  # one row per image and channel
        rows = x.flatten(0, 1).flatten(1)
    return rows, lambda y: y.view(x.shape)


def _like_rows(grad: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A gradient in the order of ``_rows(x, axis)``."""
    last = axis != 1 and _in_channels_last(x)
    layout = torch.channels_last if last else torch.contiguous_format
    return _rows(grad.contiguous(memory_format=layout), axis)[0]


def _per_row(values: Any, rows: Tensor, axis: int | None) -> Any:
    """Values of scales as those of rows: shape (), or (rows, 1); None stays
    None."""
    if values is None:
        return None
    if axis is None:
        return values.view(())
    if axis == 1:
        values = values.repeat(len(rows) // len(values))
    return values.unsqueeze(1)


def _per_scale(grad: Tensor, scale: Tensor) -> Tensor:
    """Gradients of rows, summed over those that share a scale."""
    if grad.numel() == scale.numel():
        return grad.view(scale.shape)
    return grad.view(-1, len(scale)).sum(0)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    qmin: Tensor,
    qmax: Tensor,
    *,
    axis: int | None = None,
    log_scale: Tensor | None = None,
    factor: float = 1.0,
    slot: int | None = None,
) -> Tensor:
    """Run :func:`functional.fake_quantize`, as one kernel in training.

    The result is that of the function in ``functional.py``. That function
    broadcasts its arguments; this one takes one scale, or one per channel,
    and views ``x`` as rows for it. Where gradients are needed, forward and
    backward pass are one compiled kernel each; elsewhere the plain function
    runs.

    The gradients of ``log_scale`` and ``offset`` are
    ``factor * dL/dscale`` and ``factor * dL/doffset``; that of ``scale``, if
    it needs one, has no factor.

    Args:
        x (Tensor): Any shape.
        scale (Tensor): Step size in units of ``x``. Shape (C, ) with
            ``axis``, else () or (1, ).
        offset (Tensor, optional): Value of the integer 0 in units of ``x``,
            shape of ``scale``, or of ``log_scale`` if there is a ``slot``.
            Default: 0.
        qmin (Tensor): Smallest integer, shape ().
        qmax (Tensor): Largest integer, shape ().
        axis (int, optional): 0 or 1: one scale per entry of this axis of
            ``x``.
        log_scale (Tensor, optional): Gets LSQ's gradient; it has the shape of
            ``scale``, which then has none.
        factor (float): From :func:`functional.lsq_gradient_factor`.
        slot (int, optional): ``log_scale`` and ``offset`` hold several slots,
            one after the other, and ``scale`` is of this one.

    Returns:
        Tensor: Shape and dtype of ``x``.
    """
    scale = scale.float()
    if torch.compiler.is_dynamo_compiling():
        # The compiler makes the backward pass of the plain function, and one
        # loop of the rounding and the operations around it.
        log_scale, offset = (
            _of_slot(values, scale, slot) for values in (log_scale, offset)
        )
        if log_scale is not None:
            scale = _with_gradient(scale, log_scale, factor)
        if offset is not None:
            offset = _with_gradient(offset, offset, factor)
            offset = _for_broadcasting(offset, x, axis)
        scale = _for_broadcasting(scale, x, axis)
        return functional.fake_quantize(x, scale, offset, qmin, qmax)
    trained = (x, scale, offset, log_scale)
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in trained
    ):
        return _FakeQuantize.apply(
            x, scale, offset, qmin, qmax, axis, log_scale, factor, slot
        )
    rows, back = _rows(x, axis)
    return back(
        functional.fake_quantize(
            rows,
            _per_row(scale, rows, axis),
            _per_row(_of_slot(offset, scale, slot), rows, axis),
            qmin,
            qmax,
        )
    )


def _for_broadcasting(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Values of scales in a shape that broadcasts with ``x``."""
    if axis is None:
        return values.view(())
    return values.view([-1 if k == axis else 1 for k in range(x.dim())])


def _with_gradient(value: Tensor, of: Tensor, factor: float) -> Tensor:
    """``value``, whose gradient goes to ``of``, multiplied by ``factor``."""
    return value.detach() + factor * (of - of.detach())


class _Pact(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, qmin: Tensor, qmax: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, alpha, qmin)
        rows, back = _rows(x, None)
        return back(_pact(rows, alpha, qmin, qmax)).detach()

    @staticmethod
    @_run_as_it_is
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, qmin = ctx.saved_tensors
        rows, back = _rows(x, None)
        flat = _like_rows(grad, x, None)
        grad_x, grad_alpha = _pact_backward(flat, rows, alpha, qmin)
        return back(grad_x), grad_alpha.view_as(alpha), None, None


def _may_use_kernels() -> bool:
    """Not without gradients, and not inside of what the user compiles."""
    return torch.is_grad_enabled() and not torch.compiler.is_dynamo_compiling()


def pact(x: Tensor, alpha: Tensor, qmin: Tensor, qmax: Tensor) -> Tensor:
    """Run :func:`functional.pact`, as one kernel in training."""
    trained = x.requires_grad or alpha.requires_grad
    if trained and _may_use_kernels():
        return _Pact.apply(x, alpha, qmin, qmax)
    return functional.pact(x, alpha, qmin, qmax)


class _DoReFaWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, qmax: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return _dorefa(rows, qmax, True)

    @staticmethod
    @_run_as_it_is
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return _dorefa_backward(grad.contiguous(), rows), None


def dorefa_weight(weight: Tensor, qmax: Tensor, per_channel: bool) -> Tensor:
    """Run :func:`functional.dorefa_weight`, as one kernel in training."""
    if not (weight.requires_grad and _may_use_kernels()):
        return functional.dorefa_weight(weight, qmax, per_channel)
    rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
    return _DoReFaWeight.apply(rows, qmax).view(weight.shape)


def minmax_scale(
    low: Tensor, high: Tensor, qmin: Tensor, qmax: Tensor
) -> Tensor:
    """Run :func:`functional.minmax_scale`, as one kernel where gradients are
    enabled."""
    run = _minmax_scale if _may_use_kernels() else functional.minmax_scale
    return run(low, high, qmin, qmax)
