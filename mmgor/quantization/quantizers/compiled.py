"""The fused form of ``functional.fake_quantize``: one pass over memory.

``torch.compile`` turns each composition of ``functional`` into one kernel.
Tensors are flattened to one dimension (one scale) or two (one scale a row)
first, so that a handful of compiled variants serves every layer and every
picture size. Where no compiler is found the plain composition runs, and a
warning says so once.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from . import functional

# Signedness and dtype make variants of one function. torch's default limit
# of 8 would silently fall back to eager in a mixed network. It is one for the
# whole process.
_MAX_VARIANTS = 64


class _Fused:
    """A function compiled on first use, with a fall-back to itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *args: Tensor | None) -> Any:
        if self._compiled is None:
            config = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, _MAX_VARIANTS)
            self._compiled = torch.compile(self.function, dynamic=True)
        try:
            return self._compiled(*args)
        except (torch.OutOfMemoryError, MemoryError):
            raise  # it might fit the next time, and must stay compiled
        except Exception as error:  # every backend raises its own kind
            # Raises again if it was not the compiler's fault.
            result = self.function(*args)
            self._compiled = self.function
            print_log(
                f'{self.function.__name__} could not be compiled '
                f'({type(error).__name__}); quantizers run uncompiled, '
                'several times slower. Install a C++ compiler (CPU) or '
                'triton (GPU) to mend it.',
                logger='current',
                level=logging.WARNING,
            )
            return result


_forward = _Fused(functional.fake_quantize)
_backward = _Fused(functional.fake_quantize_backward)


class _FakeQuantize(torch.autograd.Function):
    """Joins the two kernels; keeps ``x`` and nothing else of its size."""

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
        saved = ctx.saved_tensors  # once: a checkpoint gives them once
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
    """One-dimensional view in memory order, and the way back."""
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
    """:func:`functional.fake_quantize` for a whole tensor or per channel.

    Args:
        x (Tensor): Any shape.
        scale (Tensor): Shape () without, (C, ) with ``per_channel``.
        offset (Tensor, optional): Shape of ``scale``. Default: 0.
        qmin (Tensor): Smallest integer, shape ().
        qmax (Tensor): Largest integer, shape ().
        per_channel (bool): One scale an entry of ``x``'s first axis.
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
