"""``functional.fake_quantize`` as two compiled kernels, for training.

``torch.compile`` turns ``fake_quantize`` and ``fake_quantize_backward`` of
``functional.py`` into one kernel each, which reads and writes a tensor once.
Tensors are first flattened to one axis (one scale) or to two (one scale per
row), so that a handful of compiled variants serves every layer and every image
size. Where nothing can be compiled the plain functions run, and a warning says
so once.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

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

    def __call__(self, *args: Tensor | None) -> Any:
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

    The limit on variants belongs to the whole process: it is raised here, once
    per function, and never lowered.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MAX_VARIANTS)
    return torch.compile(function, dynamic=True)


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
    ) -> Tensor:
        ctx.save_for_backward(x, scale, offset, qmin, qmax)
        return _forward(x, scale, offset, qmin, qmax)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # a checkpoint only allows one read
        _, scale, offset, *_ = saved
        grad_x, grad_scale, grad_offset = _backward(grad.contiguous(), *saved)
        return (
            grad_x,
            grad_scale.view_as(scale),
            None if offset is None else grad_offset.view_as(offset),
            None,
            None,
        )


def _flat(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A view of ``x`` with one axis, in memory order, and its inverse."""
    if (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    ):
        last = x.permute(0, 2, 3, 1)
        return last.flatten(), lambda y: y.view(last.shape).permute(0, 3, 1, 2)
    return x.flatten(), lambda y: y.view(x.shape)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    qmin: Tensor,
    qmax: Tensor,
    per_channel: bool = False,
) -> Tensor:
    """Run :func:`functional.fake_quantize`, as one kernel in training.

    The result is that of the function in ``functional.py``. That function
    broadcasts its arguments; this one takes one scale, or one per channel,
    and flattens ``x`` for it. Where gradients are needed, forward and backward
    pass are one compiled kernel each; elsewhere the plain function runs.

    Args:
        x (Tensor): Any shape.
        scale (Tensor): Step size in units of ``x``. Shape (C, ) with
            ``per_channel``, else ().
        offset (Tensor, optional): Value of the integer 0 in units of ``x``,
            shape of ``scale``. Default: 0.
        qmin (Tensor): Smallest integer, shape ().
        qmax (Tensor): Largest integer, shape ().
        per_channel (bool): One scale per entry of ``x``'s first axis.

    Returns:
        Tensor: Shape and dtype of ``x``.
    """
    scale = scale.float()
    tensors = (x, scale, offset)
    with_grad = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )
    kernel = _FakeQuantize.apply if with_grad else functional.fake_quantize
    if not per_channel:
        flat, back = _flat(x)
        return back(kernel(flat, scale, offset, qmin, qmax))
    offset = None if offset is None else offset.unsqueeze(1)
    out = kernel(x.flatten(1), scale.unsqueeze(1), offset, qmin, qmax)
    return out.view(x.shape)
