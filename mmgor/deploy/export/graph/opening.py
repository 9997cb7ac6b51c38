"""Opens a written ONNX file as a user of ONNX Runtime does."""

import warnings
from pathlib import Path

from mmgor.deploy.optional_imports import require


def warn_unless_it_opens(written: Path, path: Path) -> None:
    """Open a file with the default options of ONNX Runtime.

    :func:`.open_runtime` may switch optimizations of graphs off, so that it
    opens files that others can't. Without ONNX Runtime nothing is checked.

    Args:
        written (Path): The ``.onnx`` file.
        path (Path): Its name in the message.

    Warns:
        UserWarning: If it does not open.
    """
    try:
        onnxruntime = require('onnxruntime')
    except ImportError:
        return
    try:
        onnxruntime.InferenceSession(
            written, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # its exceptions have no common base
        warnings.warn(
            f'ONNX Runtime {onnxruntime.__version__} can not open {path} with '
            f'its default options: {error}. mmgor.deploy.Detector and the '
            'tools open it with integer_kernels=False. In your own program, '
            "type options.add_session_config_entry('session."
            "disable_quant_qdq', '1').",
            stacklevel=2,
        )
