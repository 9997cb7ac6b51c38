"""Packages that only deployment needs."""

from importlib import import_module
from typing import Any

_PIP_NAMES = {'onnx_ir': 'onnx-ir'}


def require(name: str) -> Any:
    """Import a package of the ``deploy`` extra.

    Args:
        name (str): Import name, e.g. 'onnxruntime'.

    Raises:
        ImportError: If it is not installed; the message says what to type.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition('.')[0]:
            raise
        package = _PIP_NAMES.get(name, name.partition('.')[0])
        raise ImportError(
            f'{package} is not installed; expected the packages of the '
            '"deploy" extra. Type: pip install "mmgor[deploy]" (in a '
            'checkout: pip install -e ".[deploy]").'
        ) from error
