"""Imports packages that only deployment needs."""

from importlib import import_module
from typing import Any

_PIP_NAMES = {
    'onnx_ir': 'onnx-ir',
    'litert_torch': 'litert-torch',
    'ai_edge_litert': 'ai-edge-litert',
}
# The extra that installs a package; for others it is 'deploy'.
_EXTRAS = {
    'litert_torch': 'litert',
    'ai_edge_litert': 'litert',
    'executorch': 'executorch',
    'ncnn': 'ncnn',
}


def require(name: str) -> Any:
    """Import a package that one of mmgor's extras installs.

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
        module = name.partition('.')[0]
        if error.name != module:
            raise
        extra = _EXTRAS.get(module, 'deploy')
        raise ImportError(
            f'{_PIP_NAMES.get(module, module)} is not installed; expected '
            f'the packages of mmgor[{extra}]. Type: pip install '
            f'"mmgor[{extra}]" (in a checkout: pip install -e ".[{extra}]").'
        ) from error
