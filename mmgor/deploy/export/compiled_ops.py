"""Refuses networks that use compiled operators of mmcv that ONNX lacks.

It has deformable convolutions (``deform_conv``).
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import nn

from mmgor.io.checkpoint import is_deployed

from .deform_conv import WRITTEN_FUNCTIONS, WRITTEN_MODULES

_COMPILED = 'mmcv._ext'
_HINT = (
    'Expected a detector without them. Choose another backbone, neck or head.'
)


def check_modules(detector: nn.Module) -> None:
    """Make sure that ONNX has every operator of mmcv among the modules.

    Args:
        detector (nn.Module): Its losses are left out.

    Raises:
        ValueError: If it lacks one.
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
            f'mmcv operators that ONNX does not have: {unknown}. {_HINT}'
        )


def _is_operator(module: nn.Module) -> bool:
    """Whether its class is an operator of mmcv that ONNX does not have, or a
    quantized subclass."""
    return not isinstance(module, WRITTEN_MODULES) and any(
        kind.__module__.startswith('mmcv.ops') for kind in type(module).mro()
    )


def check_calls(network: nn.Module, function: Callable[[], Any]) -> Any:
    """Run a network, and make sure that ONNX has the compiled code it calls.

    A head may call an operator without a module.

    Args:
        network (nn.Module): Its modules are named in the message.
        function (Callable): Runs the network.

    Returns:
        Any: The result of the function.

    Raises:
        ValueError: If it lacks an operator.
    """
    names = {id(module): name for name, module in network.named_modules()}
    found: dict[str, list[str]] = {}

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event != 'c_call' or called.__module__ != _COMPILED:
            return
        if called.__name__ not in WRITTEN_FUNCTIONS:
            owners = found.setdefault(called.__name__, [])
            owner = _owner(frame, names)
            if owner not in owners:
                owners.append(owner)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        result = function()
    finally:
        sys.setprofile(before)
    if found:
        raise ValueError(
            f'mmcv operators that ONNX does not have: {found}. {_HINT}'
        )
    return result


def _owner(frame: FrameType | None, names: dict[int, str]) -> str:
    """Path and class of the module whose code a frame belongs to."""
    while frame is not None:
        owner = frame.f_locals.get('self')
        if id(owner) in names:
            return f'{names[id(owner)]} ({type(owner).__name__})'.strip()
        frame = frame.f_back
    return 'no module'
