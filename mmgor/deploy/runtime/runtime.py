"""Runs an exported file on the CPU: images go in, the head's outputs come out.

The suffix of the file decides which backend runs it (``BACKENDS``).

ONNX Runtime and OpenVINO can turn QuantizeLinear, Conv and DequantizeLinear
into integer kernels, or compute them in float32. If training rounded every
tensor (``tensors='all'``), both compute what was trained, and integer kernels
are the default. If it rounded the inputs of layers alone, they are not: a W4A4
RetinaNet with 47.1 mAP in PyTorch had 45.4 mAP with OpenVINO's integer kernels
on a CPU without VNNI, and 47.1 without them.
"""

import warnings
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.optional_imports import require
from mmgor.io.config_values import boolean, integer

from .base import Runtime
from .executorch import ExecuTorchRuntime
from .integer_kernels import integer_by_default
from .litert import LiteRTRuntime
from .ncnn import NcnnRuntime

_MAX_THREADS = 1024


class OnnxRuntime(Runtime):
    """An ``.onnx`` file in ONNX Runtime."""

    def _open(self, threads: int | None, integer_kernels: bool) -> None:
        onnxruntime = require('onnxruntime')
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(
            'session.disable_quant_qdq', '0' if integer_kernels else '1'
        )
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                self.path, options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # its exceptions have no common base
            version = onnxruntime.__version__
            raise self._refuse(f'ONNX Runtime {version}', error) from error
        self._names = [output.name for output in self._session.get_outputs()]

    def _signature(self) -> tuple[dict[str, list[Any]], set[str]]:
        inputs = self._session.get_inputs()
        return {end.name: end.shape for end in inputs}, set(self._names)

    def _run(self, images: NDArray) -> dict[str, NDArray]:
        name = self.metadata['input']['name']
        return dict(zip(self._names, self._session.run(None, {name: images})))


class OpenVINORuntime(Runtime):
    """An ``.xml`` file with its ``.bin`` in OpenVINO."""

    def _open(self, threads: int | None, integer_kernels: bool) -> None:
        openvino = require('openvino')
        # The default is a half-precision type on some CPUs.
        options: dict[str, Any] = {
            'INFERENCE_PRECISION_HINT': 'f32',
            'LP_TRANSFORMS_MODE': integer_kernels,
        }
        if threads is not None:
            options['INFERENCE_NUM_THREADS'] = threads
        try:
            self._compiled = openvino.Core().compile_model(
                self.path, 'CPU', options
            )
        except RuntimeError as error:
            version = openvino.__version__
            raise self._refuse(f'OpenVINO {version}', error) from error

    def _signature(self) -> tuple[dict[str, list[Any]], set[str]]:
        inputs = {
            end.any_name: [
                None if side.is_dynamic else side.get_length()
                for side in end.partial_shape
            ]
            for end in self._compiled.inputs
        }
        return inputs, {end.any_name for end in self._compiled.outputs}

    def _run(self, images: NDArray) -> dict[str, NDArray]:
        results = self._compiled({self.metadata['input']['name']: images})
        return {output.any_name: results[output] for output in results}


#: The backend of each kind of file.
BACKENDS: dict[str, type[Runtime]] = {
    '.onnx': OnnxRuntime,
    '.xml': OpenVINORuntime,
    '.tflite': LiteRTRuntime,
    '.param': NcnnRuntime,
    '.pte': ExecuTorchRuntime,
}


def open_runtime(
    path: str | Path,
    threads: int | None = None,
    integer_kernels: bool | None = None,
) -> Runtime:
    """Open a file that ``tools/export.py`` wrote.

    Integer kernels are fast, but they round biases to the product of two
    scales, and on x86 without VNNI sums of products of 8-bit integers
    saturate. In float32, integers and rounding are exactly those of training.

    Args:
        path (str | Path): Exported file. An ``.xml`` or ``.param`` has its
            ``.bin`` beside it.
        threads (int, optional): Number of threads per call. By default the
            backend chooses.
        integer_kernels (bool, optional): Let the backend compute in integers.
            By default it does if training rounded every tensor and no sum
            saturates on this CPU. LiteRT, ExecuTorch and ncnn always do.

    Returns:
        Runtime: It takes images and returns the head's raw outputs.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file can't be read, was not written by mmgor or was
            written by a newer version of it, if ``threads`` is not from 1 to
            1024, or if LiteRT, ExecuTorch or ncnn should compute in float.
        ImportError: If the backend is not installed.
    """
    # A backend starts as many threads as it is told to, or hangs.
    if threads is not None:
        threads = integer('threads', threads, 1, _MAX_THREADS)
    path = Path(path)
    metadata = read_metadata(path)
    backend = BACKENDS[path.suffix]
    if integer_kernels is None:
        integer_kernels = backend.integer_only or integer_by_default(
            metadata, path
        )
    integer_kernels = boolean('integer_kernels', integer_kernels)
    if backend.integer_only and not integer_kernels:
        raise ValueError(
            f'{path} has only integer kernels; expected integer_kernels=True '
            'or nothing, got False. For float32, export to .onnx or .xml.'
        )
    target = metadata['target']
    if integer_kernels and target and path.suffix == '.onnx':
        _warn_of_another_target(path, target)
    return backend(path, metadata, threads, integer_kernels)


def _warn_of_another_target(path: Path, target: str) -> None:
    if target != 'x86':
        warnings.warn(
            f'{path} was written for {target}: ONNX Runtime computes parts of '
            'it in float. Expected a file for x86 where speed matters: '
            'python tools/export.py CONFIG CHECKPOINT --target x86.',
            stacklevel=3,
        )
