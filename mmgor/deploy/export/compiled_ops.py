"""mmcv's compiled operators, which ONNX does not have."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import nn

from mmgor.io.checkpoint import is_deployed

_COMPILED = 'mmcv._ext'
_HINT = (
    'Expected a detector without them; choose another backbone, neck or head.'
)


def check_modules(detector: nn.Module) -> None:
    """Make sure that no module is an operator of mmcv's.

    Raises:
        ValueError: If one is.
    """
    unknown = {
        name: type(module).__name__
        for name, module in detector.named_modules()
        if _is_operator(module)
        and is_deployed(name)
        and not name.rpartition('.')[2].startswith('loss')
    }
    if unknown:
        raise ValueError(
            f'mmcv operators without an ONNX form: {unknown}. {_HINT}'
        )


def _is_operator(module: nn.Module) -> bool:
    """Whether its class is one, or derived from one as quantized ones are."""
    return any(
        kind.__module__.startswith('mmcv.ops') for kind in type(module).mro()
    )


def check_calls(function: Callable[[], Any]) -> Any:
    """Call a function, which must not call mmcv's compiled code: a head may
    do so without a module (TOOD's calls ``deform_conv2d``).

    Args:
        function (Callable): Runs a network.

    Returns:
        Any: What it gives.

    Raises:
        ValueError: If it does.
    """
    found: dict[str, str] = {}

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event == 'c_call' and called.__module__ == _COMPILED:
            found.setdefault(called.__name__, _module_of(frame))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        result = function()
    finally:
        sys.setprofile(before)
    if found:
        calls = ', '.join(f'{n} (by {owner})' for n, owner in found.items())
        raise ValueError(
            f'mmcv operators without an ONNX form: {calls}. {_HINT}'
        )
    return result


def _module_of(frame: FrameType | None) -> str:
    """Class of the module whose code led to a frame."""
    while frame is not None:
        owner = frame.f_locals.get('self')
        if isinstance(owner, nn.Module):
            return type(owner).__name__
        frame = frame.f_back
    return 'no module'
