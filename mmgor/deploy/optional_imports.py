"""Imports packages that only deployment needs."""

from importlib import import_module
from typing import Any

_PIP_NAMES = {'onnx_ir': 'onnx-ir'}


def require(name: str) -> Any:
    """Import a package that ``pip install "mmgor[deploy]"`` installs.

    Args:
        name (str): Name of the module, e.g. 'onnxruntime'.

    Returns:
        Any: The module.

    Raises:
        ImportError: If the package is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition('.')[0]:
            raise
        package = _PIP_NAMES.get(name, name.partition('.')[0])
        raise ImportError(
            f'{package} is not installed; expected the packages of '
            'mmgor[deploy]. Type: pip install "mmgor[deploy]" (in a '
            'checkout: pip install -e ".[deploy]").'
        ) from error
