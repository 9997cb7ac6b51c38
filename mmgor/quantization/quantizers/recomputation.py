"""What a call decided, for the second run that activation checkpointing makes.

``torch.utils.checkpoint`` throws away what a forward kept and runs it again
in the backward pass: with the same input, but later, in another order, and
perhaps not all of it. Whatever a forward moves must be moved by the first run
alone, and the second must see what the first saw.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Of one module, between two backward passes: forwards in training mode whose
# backward pass never comes must not pile up.
_MAX_CALLS = 256


def is_recomputed() -> bool:
    """Whether autograd itself runs this forward, in a backward pass."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._current_graph_task_id() != -1
    )


def may_be_recomputed(training: bool) -> bool:
    """Whether this forward may be checkpointed.

    A reentrant checkpoint runs it without gradient, the other one with hooks
    on the tensors that are saved.

    Args:
        training (bool): Of the module that asks. Without gradient and not in
            training is taken for inference.
    """
    if torch.compiler.is_compiling():
        return False
    if not torch.is_grad_enabled():
        return training
    hooks = getattr(
        torch._C._autograd, '_top_saved_tensors_default_hooks', None
    )
    # torch < 2.8 cannot tell.
    return hooks is None or hooks(True) is not None


@dataclass
class _Call:
    shape: torch.Size
    mark: Tensor
    value: Any
    reruns: int = 0


class OncePerCall:
    """Gives each call of a module a value that its second run gets again.

    The two runs of a call are known by their input: its shape and, where
    several calls had that shape, its sum and norm. To compare these is the
    only time that an accelerator has to be waited for. Of calls with one and
    the same input the last runs again first, as a backward pass goes.
    """

    def __init__(self) -> None:
        self._calls: deque[_Call] = deque(maxlen=_MAX_CALLS)
        self._done = False

    def __call__(
        self, x: Tensor, make: Callable[[], Any], training: bool
    ) -> Any:
        """The value of the call whose input is ``x``.

        Args:
            x (Tensor): Input of the call, of any shape.
            make (Callable): Gives the value; called in the first run only.
            training (bool): Mode of the module.

        Raises:
            RuntimeError: In a second run, if no first one is known.
        """
        if is_recomputed():
            self._done = True
            call = self._find(x)
            call.reruns += 1
            return call.value
        value = make()
        if may_be_recomputed(training):
            if self._done:  # the backward pass of what is kept is over
                self._calls.clear()
                self._done = False
            self._calls.append(_Call(x.shape, _mark(x), value))
        return value

    def _find(self, x: Tensor) -> _Call:
        calls = [call for call in self._calls if call.shape == x.shape]
        if not calls:
            raise RuntimeError(
                'a quantized layer is run a second time, by activation '
                f'checkpointing, with an input of shape {tuple(x.shape)}; '
                'expected an input that it had in a forward of this step in '
                'training mode. Call model.train() before the forward, and '
                'backward() once after all forwards of a step.'
            )
        if len(calls) == 1:
            return calls[0]
        marks = torch.stack([call.mark for call in calls])
        away = (marks - _mark(x)).abs().sum(1).tolist()
        order = range(len(calls))
        return calls[min(order, key=lambda i: (away[i], calls[i].reruns, -i))]


@torch.no_grad()
def _mark(x: Tensor) -> Tensor:
    """Sum and norm, shape (2, )."""
    norm = torch.linalg.vector_norm(x, dtype=torch.float32)
    return torch.stack([x.sum(dtype=torch.float32), norm])
