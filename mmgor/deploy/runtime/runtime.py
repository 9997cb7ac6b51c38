"""Runs an exported file in ONNX Runtime or OpenVINO, on the CPU.

Images go in, the head's raw outputs come out. Values are rounded where the
file says, and nowhere else. So the backends may not turn QuantizeLinear, Conv
and DequantizeLinear into integer kernels, which round differently:

- They round biases to the product of the input's and the weight's scale,
  which is coarse at 4 bits.
- On x86 without VNNI they add two products of uint8 and int8 in 16 bits,
  which saturate.

A W4A4 RetinaNet with 47.1 mAP in PyTorch had 45.4 mAP with OpenVINO's integer
kernels, and 47.1 without them.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.head_outputs import map_nested
from mmgor.deploy.optional_imports import require
from mmgor.io.config_values import boolean, integer

_MAX_THREADS = 1024


class Runtime(ABC):
    """An exported file that a backend has loaded.

    Args:
        path (Path): The file.
        metadata (dict): Its metadata, from :func:`read_metadata`.
        threads (int, optional): Number of threads per call. By default the
            backend chooses.
        integer_kernels (bool): See :func:`open_runtime`.

    Raises:
        ValueError: If the backend can't open the file.
    """

    def __init__(
        self,
        path: Path,
        metadata: dict[str, Any],
        threads: int | None,
        integer_kernels: bool,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self._open(threads, integer_kernels)
        self._check_signature()

    def __deepcopy__(self, memo: dict) -> 'Runtime':
        """The same object, for EMAHook, which copies the model that owns it.
        A runtime has no state that a call changes."""
        return self

    def __call__(self, images: Tensor) -> Any:
        """Run the file once.

        Args:
            images (Tensor): Shape (N, C, H, W), float32, preprocessed as in
                training, and of a shape that the file takes.

        Returns:
            list: float32 tensors on the CPU, nested like the outputs of the
            head's ``forward``.

        Raises:
            ValueError: If the file does not take images of this shape.
        """
        check_images(images, self.metadata['input'])
        arrays = self._run(images.detach().cpu().contiguous().numpy())
        return map_nested(
            lambda name: torch.from_numpy(arrays[name]),
            self.metadata['outputs'],
        )

    @abstractmethod
    def _open(self, threads: int | None, integer_kernels: bool) -> None:
        """Load the file into the backend."""

    @abstractmethod
    def _run(self, images: NDArray) -> dict[str, NDArray]:
        """Run the graph and return the value of each output by its name."""

    @abstractmethod
    def _signature(self) -> tuple[dict[str, list[Any]], set[str]]:
        """Shapes of the graph's inputs by name, and names of its outputs.

        A side that is not an int is dynamic.
        """

    def _check_signature(self) -> None:
        """Make sure that the graph has the inputs and outputs of the
        metadata."""
        spec, (inputs, outputs) = self.metadata['input'], self._signature()
        sides = [spec[k] for k in ('batch', 'channels', 'height', 'width')]
        shape = inputs.get(spec['name'], [])
        fits = len(shape) == len(sides) and not any(
            isinstance(side, int) and want != side
            for side, want in zip(shape, sides)
            if want is not None
        )
        named: list[str] = []
        map_nested(named.append, self.metadata['outputs'])
        if not fits or not outputs.issuperset(named):
            raise ValueError(
                f'{self.path} can not be used: its metadata says that it '
                f'takes {spec} and gives {named[:5]}, but its graph takes '
                f'{inputs} and gives {sorted(outputs)[:5]}. Export it again.'
            )

    def _refuse(self, backend: str, error: Exception) -> ValueError:
        return ValueError(
            f'{self.path} could not be opened by {backend} ({error}); '
            'expected a complete file that tools/export.py wrote. Export it '
            f'again, or with a newer {backend}.'
        )


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


def open_runtime(
    path: str | Path,
    threads: int | None = None,
    integer_kernels: bool = False,
) -> Runtime:
    """Open a file that ``tools/export.py`` wrote.

    By default the backend computes in float32. Then integers and rounding are
    those of training, and so are the detections. The backends' integer
    kernels may be faster, but they are not exact: ONNX Runtime rounds biases
    to the product of two scales, which is coarse below 8 bits, and on x86
    without VNNI the sums of products of 8-bit integers saturate in both
    backends. (7-bit weights instead of 8-bit weights avoid that.)

    Args:
        path (str | Path): ``.onnx`` file, or ``.xml`` with its ``.bin``.
        threads (int, optional): Number of threads per call. By default the
            backend chooses.
        integer_kernels (bool): Let the backend compute in integers.

    Returns:
        Runtime: It takes images and returns the head's raw outputs.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file can't be read, was not written by mmgor or was
            written by a newer version of it, or if ``threads`` is not from 1
            to 1024.
        ImportError: If the backend is not installed.
    """
    # A backend starts as many threads as it is told to, or hangs.
    if threads is not None:
        threads = integer('threads', threads, 1, _MAX_THREADS)
    integer_kernels = boolean('integer_kernels', integer_kernels)
    path = Path(path)
    metadata = read_metadata(path)
    backend = OnnxRuntime if path.suffix == '.onnx' else OpenVINORuntime
    return backend(path, metadata, threads, integer_kernels)


def check_images(images: Tensor, spec: dict[str, Any]) -> None:
    """Make sure that a file takes these images.

    Args:
        images (Tensor): The images, preprocessed.
        spec (dict): ``input`` of the file's metadata. ``batch``, ``height``
            and ``width`` are None where the file takes any size; dynamic
            sides have to be multiples of ``divisor``.

    Raises:
        ValueError: If the file does not take them.
    """
    channels = spec['channels']
    if images.dim() != 4 or images.shape[1] != channels:
        raise ValueError(
            f'expected images of shape (N, {channels}, height, width), got '
            f'{tuple(images.shape)}.'
        )
    if images.dtype != torch.float32:
        raise ValueError(
            'expected float32 images as the data_preprocessor gives them, '
            f'got {images.dtype}.'
        )
    batch, _, *sides = images.shape
    if spec['batch'] not in (None, batch):
        raise ValueError(
            f'the file takes batches of {spec["batch"]}, got {batch} images; '
            'split or fill the batch, or export with another batch size.'
        )
    wanted = [spec['height'], spec['width']]
    if any(want not in (None, side) for want, side in zip(wanted, sides)):
        raise ValueError(
            f'the file takes images of {wanted[0]} x {wanted[1]} (height x '
            f'width), got {sides[0]} x {sides[1]}. Pad smaller ones at the '
            'right and the bottom, scale larger ones down (Resize in the '
            'test pipeline), or export for another size.'
        )
    divisor = spec['divisor']
    if any(side % divisor for side in sides):
        raise ValueError(
            'the file takes images with sides that are multiples of '
            f'{divisor}, got {sides[0]} x {sides[1]} (height x width). Pad '
            'the images at the right and the bottom.'
        )
