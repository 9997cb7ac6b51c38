"""Counts the kernels that operators of torch would launch on a device."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmgor.quantization.quantizers import compiled

aten = torch.ops.aten
# They reserve memory, or give a tensor another shape, without a kernel.
NO_KERNEL = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten._unsafe_view.default,
}


class Launches(TorchDispatchMode):
    """Counts operators that are no views.

    Attributes:
        counted (Counter): Name of the operator -> how often it ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()
        self._fused = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        quiet = self._fused or func.is_view or func in NO_KERNEL
        if not quiet:
            # Zeros, and then a copy into them.
            kernels = 2 if func is aten.select_backward.default else 1
            self.counted[func.overloadpacket.__name__] += kernels
        return func(*args, **(kwargs or {}))

    def take(self) -> dict[str, int]:
        """What was counted since the last call."""
        taken, self.counted = self.counted, Counter()
        return dict(taken)

    def as_one(self, name: str, function: Callable) -> Callable[..., Any]:
        """The function, counted as the one kernel that it is compiled to."""

        def call(*args: Any) -> Any:
            self.counted[name] += 1
            self._fused += 1
            try:
                return function(*args)
            finally:
                self._fused -= 1

        return call


@contextmanager
def launches() -> Iterator[Launches]:
    """Count in this block. Functions that training compiles count as one."""
    counter = Launches()
    with counter:
        patches = {
            name: counter.as_one(
                f'compiled {function.function.__name__}', function
            )
            for name, function in vars(compiled).items()
            if isinstance(function, compiled._Fused)
        }
        with mock.patch.multiple(compiled, **patches):
            yield counter
