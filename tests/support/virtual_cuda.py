"""A virtual CUDA device: tests see where tensors live without a GPU.

Its tensors keep their values on the CPU and report the device ``cuda:0``. They
follow CUDA's rules about mixing devices. Each time the host would wait for the
device, the line of code that caused it is counted. Time and memory are not
simulated.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import mmgor
from tests.support import cuda_rules
from tests.support.cuda_rules import (
    CURRENT,
    HOST_RESULTS,
    CudaTensor,
    check_generators,
    check_mixing,
    held,
    leaves,
    mapped,
    waits_for,
)

OURS = str(Path(mmgor.__file__).parent)
# Frames of these files are skipped when a wait is attributed to a line.
PASSED_OVER = (
    str(Path(torch.__file__).parent),
    __file__,
    cuda_rules.__file__,
)


class VirtualCuda:
    """The device inside a ``with virtual_cuda()`` block.

    Attributes:
        waits (Counter): 'file:line operation' -> how often this line of mmgor
            made the host wait.
        stock_waits (Counter): The same for lines of other packages.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.stock_waits: Counter[str] = Counter()
        # Whether functions without tensor arguments create CUDA tensors.
        self.makes_cuda = False

    def wait(self, what: str) -> None:
        frame: Any = sys._getframe(1)
        while frame.f_code.co_filename.startswith(PASSED_OVER):
            frame = frame.f_back
        file = frame.f_code.co_filename
        ours = file.startswith(OURS)
        name = Path(file).relative_to(OURS) if ours else Path(file).name
        line = f'{name}:{frame.f_lineno} {what}'
        (self.waits if ours else self.stock_waits)[line] += 1

    def run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run one operator of torch, with CUDA's rules.

        Raises:
            RuntimeError: If it mixes devices.
        """
        given = leaves((args, kwargs))
        tensors = [x for x in given if isinstance(x, Tensor)]
        mine = [x for x in tensors if isinstance(x, CudaTensor)]
        to_cuda = bool(mine) if tensors else self.makes_cuda
        if mine:
            check_mixing(func, args, tensors)
            for what in waits_for(func, args):
                self.wait(what)
        if to_cuda:
            check_generators(given)
        owner = {id(x.held): x for x in mine}
        out = func(*held(args), **held(kwargs))
        if func in HOST_RESULTS or not to_cuda:
            return out

        def placed(x: Any) -> Any:
            # An in-place operator returns one of its arguments.
            if not isinstance(x, Tensor) or any(x is y for y in tensors):
                return x
            return owner[id(x)] if id(x) in owner else CudaTensor(x)

        return mapped(placed, out)

    def move(self, x: Tensor, to_cuda: bool, waits: bool = True) -> Tensor:
        """Copy to or from the device; gradients take the way back."""
        if isinstance(x, CudaTensor) == to_cuda:
            return x
        if waits:
            self.wait('copy')
        return (_Up if to_cuda else _Down).apply(x)


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return CudaTensor(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Tensor:
        return grad.held


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Tensor:
        return x.held.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return CudaTensor(grad)


class _Dispatch(TorchDispatchMode):
    """Catches operators that create tensors and get none."""

    def __init__(self, device: VirtualCuda) -> None:
        super().__init__()
        self.virtual = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        return self.virtual.run(func, args, kwargs or {})


_COPIES = {torch.tensor, torch.as_tensor}
_HOST = {Tensor.tolist, Tensor.numpy}
_DEEP_COPIES = {Tensor.__deepcopy__, nn.Parameter.__deepcopy__}
# It reads only the size, which the host knows; wrappers have no kernel.
_SIZE = torch._shape_as_tensor


class _Functions(TorchFunctionMode):
    """Catches calls that name a device."""

    def __init__(self, device: VirtualCuda) -> None:
        super().__init__()
        self.virtual = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            return self._to(args[0], *args[1:], **kwargs)
        if func in (Tensor.cpu, Tensor.cuda):
            return self.virtual.move(args[0], func is Tensor.cuda)
        if func is _SIZE:
            return func(*held(args))
        if func is Tensor.type_as:
            return self._to(*args)
        if func in _HOST and isinstance(args[0], CudaTensor):
            self.virtual.wait(func.__name__)
            return func(args[0].held.detach(), *args[1:], **kwargs)
        wanted = kwargs.pop('device', None)
        # A deep copy brings along all that was copied before.
        given = args[:1] if func in _DEEP_COPIES else (args, kwargs)
        got = any(isinstance(x, CudaTensor) for x in leaves(given))
        to_cuda = got if wanted is None else _is_cuda(wanted)
        if func is Tensor.new_tensor:
            kwargs.setdefault('dtype', args[0].dtype)
            func, args = torch.tensor, args[1:]
        if func in _COPIES:
            with self._making(False):
                made = func(*args, **kwargs)
            return self.virtual.move(made, to_cuda)
        with self._making(to_cuda):
            return func(*args, **kwargs)

    @contextmanager
    def _making(self, to_cuda: bool) -> Iterator[None]:
        before = self.virtual.makes_cuda
        self.virtual.makes_cuda = to_cuda
        try:
            yield
        finally:
            self.virtual.makes_cuda = before

    def _to(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x.to`` with any of its signatures."""
        names = ['dtype', 'non_blocking', 'copy']
        if args and not isinstance(args[0], torch.dtype):
            like = isinstance(args[0], Tensor)
            names = ['other', *names[1:]] if like else ['device', *names]
        given = {**dict(zip(names, args)), **kwargs}
        other = given.pop('other', None)
        if other is not None:
            given.update(device=other, dtype=other.dtype)
        target = given.pop('device', None)
        waits = not given.pop('non_blocking', False)
        if target is not None:
            x = self.virtual.move(x, _is_cuda(target), waits)
        given['dtype'] = given.get('dtype') or x.dtype
        with self._making(isinstance(x, CudaTensor)):
            return x.to(**given)


def _is_cuda(where: Any) -> bool:
    if isinstance(where, Tensor):
        return isinstance(where, CudaTensor)
    return torch.device(where).type == 'cuda'


class _Operators:
    """mmcv's compiled operators, run on the values behind CUDA tensors."""

    def __init__(self, stock: Any) -> None:
        self.stock = stock

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.stock, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            out = function(*held(args), **held(kwargs))
            if not any(isinstance(x, CudaTensor) for x in args):
                return out
            return mapped(
                lambda x: CudaTensor(x) if type(x) is Tensor else x, out
            )

        return call


class _CpuAutocast(torch.autocast):
    """Autocast of the CPU, on which the virtual device computes."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__('cpu', *args, **kwargs)


@contextmanager
def virtual_cuda() -> Iterator[VirtualCuda]:
    """Provide the device: ``model.to('cuda')`` moves a model to it."""
    device = VirtualCuda()
    operators = [
        mock.patch.object(module, 'ext_module', _Operators(module.ext_module))
        for name, module in sys.modules.items()
        if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module')
    ]
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    CURRENT.append(device)
    with ExitStack() as stack:
        for patch in operators:
            stack.enter_context(patch)
        stack.enter_context(mock.patch('torch.autocast', _CpuAutocast))
        # Moving a module replaces its tensors by some of another class.
        set_overwrite = (
            torch.__future__.set_overwrite_module_params_on_conversion
        )
        set_overwrite(True)
        stack.callback(set_overwrite, overwrite)
        stack.callback(CURRENT.pop)
        stack.enter_context(_Dispatch(device))
        stack.enter_context(_Functions(device))
        yield device
