"""Lets quantizers work with activation checkpointing.

``torch.utils.checkpoint`` drops the activations of a forward pass and runs it
a second time in the backward pass: with the same inputs, but later, in another
order, and sometimes only in part. A quantizer's state (slots, moving averages)
must only change in the first run, and the second run must use the values of
the first. :class:`OncePerCall` keeps these values.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Calls kept per module between two backward passes. Without a limit, forward
# passes in training mode that have no backward pass would pile up.
_MAX_CALLS = 256


def is_recomputed() -> bool:
    """Whether autograd runs this forward pass, inside a backward pass."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._current_graph_task_id() != -1
    )


def may_be_recomputed(training: bool) -> bool:
    """Whether this forward pass may be under activation checkpointing.

    A reentrant checkpoint runs it without gradients; the other kind runs it
    with hooks on saved tensors.

    Args:
        training (bool): Training flag of the module. Without gradients, a
            module in evaluation mode is taken to be in inference.
    """
    if torch.compiler.is_compiling():
        return False
    if not torch.is_grad_enabled():
        return training
    hooks = getattr(
        torch._C._autograd, '_top_saved_tensors_default_hooks', None
    )
    # torch before 2.8 can't tell.
    return hooks is None or hooks(True) is not None


@dataclass
class _Call:
    shape: torch.Size
    mark: Tensor
    value: Any
    reruns: int = 0


class OncePerCall:
    """Makes a value per call of a module and returns it to the second run.

    The two runs of a call are matched by their input: by its shape and, if
    several calls had the same shape, by its sum and norm. This comparison is
    the only step that makes the host wait for an accelerator. If several calls
    had the same input, the last of them is matched first, since a backward
    pass goes backwards.
    """

    def __init__(self) -> None:
        self._calls: deque[_Call] = deque(maxlen=_MAX_CALLS)
        self._done = False
        #: Whether a call was kept, so that a second run may come.
        self.used = False

    def __call__(
        self, x: Tensor, make: Callable[[], Any], training: bool
    ) -> Any:
        """The value of the call whose input is ``x``.

        Args:
            x (Tensor): Input of the call, any shape.
            make (Callable): Makes the value; only called in the first run.
            training (bool): Training flag of the module.

        Raises:
            RuntimeError: In a second run without a known first run.
        """
        if is_recomputed():
            self._done = True
            call = self._find(x)
            call.reruns += 1
            return call.value
        value = make()
        if may_be_recomputed(training):
            if self._done:  # the kept calls had their backward pass
                self._calls.clear()
                self._done = False
            self._calls.append(_Call(x.shape, _mark(x), value))
            self.used = True
        return value

    def forget(self) -> None:
        """No second run comes."""
        self._calls.clear()
        self._done = self.used = False

    def _find(self, x: Tensor) -> _Call:
        calls = [call for call in self._calls if call.shape == x.shape]
        if not calls:
            raise RuntimeError(
                'activation checkpointing runs a quantized layer a second '
                f'time with an input of shape {tuple(x.shape)}; expected an '
                'input that the layer had in a forward pass of this step in '
                'training mode. Call model.train() before the forward pass, '
                'and backward() once after all forward passes of a step.'
            )
        if len(calls) == 1:
            return calls[0]
        marks = torch.stack([call.mark for call in calls])
        away = (marks - _mark(x)).abs().sum(1).tolist()
        order = range(len(calls))
        return calls[min(order, key=lambda i: (away[i], calls[i].reruns, -i))]


@torch.no_grad()
def _mark(x: Tensor) -> Tensor:
    """Sum and norm of a tensor, shape (2, )."""
    norm = torch.linalg.vector_norm(x, dtype=torch.float32)
    return torch.stack([x.sum(dtype=torch.float32), norm])
