"""Runs an exported file: images in, the head's raw outputs out.

Rounding happens where the file says, and nowhere else: the backends' own
rewriting of QuantizeLinear, Conv, DequantizeLinear into integer kernels is
off. It rounds biases to the product of input and weight scale, which is
coarse at 4 bits, and on x86 without VNNI two products of uint8 and int8 are
added in 16 bits, which saturate. A RetinaNet of W4A4 with 47.1 mAP in PyTorch
had 45.4 in OpenVINO's integer kernels, and 47.1 without them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgor.deploy.description.metadata import read_metadata
from mmgor.deploy.optional_imports import require
from mmgor.image_channels import COLOUR
from mmgor.io.config_values import boolean, integer

_MAX_THREADS = 1024


class Runtime(ABC):
    """An exported file, opened on the CPU.

    Args:
        path (Path): The file.
        metadata (dict): What :func:`read_metadata` gives for it.
        threads (int, optional): Threads of one call; default: the backend's
            choice.
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
        self._check_ends()

    def __deepcopy__(self, memo: dict) -> 'Runtime':
        """The same object: it keeps nothing of a call. (EMAHook copies the
        model that owns it.)"""
        return self

    def __call__(self, images: Tensor) -> Any:
        """Run the file once.

        Args:
            images (Tensor): Shape (N, C, H, W), float32, preprocessed as in
                training; N, C, H and W as the file takes them.

        Returns:
            list: float32 tensors on the CPU, nested as the head's
            ``forward`` gives them.

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
        """Load the file."""

    @abstractmethod
    def _run(self, images: NDArray) -> dict[str, NDArray]:
        """Output name -> values."""

    @abstractmethod
    def _ends(self) -> tuple[dict[str, list[Any]], set[str]]:
        """Shapes of the graph's inputs by name, no int where a side is
        dynamic, and names of its outputs."""

    def _check_ends(self) -> None:
        """What the metadata says of inputs and outputs is the graph's."""
        spec, (inputs, outputs) = self.metadata['input'], self._ends()
        channels = spec.get('channels', COLOUR)
        sides = [spec['batch'], channels, spec['height'], spec['width']]
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
                f'{self.path} says that it takes {spec} and gives '
                f'{named[:5]}, but its graph takes {inputs} and gives '
                f'{sorted(outputs)[:5]}. Export it again.'
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
        except Exception as error:  # its classes have no common base
            version = onnxruntime.__version__
            raise self._refuse(f'ONNX Runtime {version}', error) from error
        self._names = [output.name for output in self._session.get_outputs()]

    def _ends(self) -> tuple[dict[str, list[Any]], set[str]]:
        inputs = self._session.get_inputs()
        return {end.name: end.shape for end in inputs}, set(self._names)

    def _run(self, images: NDArray) -> dict[str, NDArray]:
        name = self.metadata['input']['name']
        return dict(zip(self._names, self._session.run(None, {name: images})))


class OpenVINORuntime(Runtime):
    """An ``.xml`` file with its ``.bin`` in OpenVINO."""

    def _open(self, threads: int | None, integer_kernels: bool) -> None:
        openvino = require('openvino')
        # The default may be a half type where the CPU has one.
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

    def _ends(self) -> tuple[dict[str, list[Any]], set[str]]:
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

    In float32, integers and all rounding are those of training, and so are
    the detections. The backends' integer kernels may be faster and are not
    exact: ONNX Runtime rounds biases to the product of two scales, which is
    coarse below 8 bits; and on x86 without VNNI sums of 8 by 8 bits saturate
    in both backends (7-bit weights in the layers that have 8 avoid that).

    Args:
        path (str | Path): ``.onnx``, or ``.xml`` with its ``.bin``.
        threads (int, optional): Threads of one call; default: the backend's
            choice.
        integer_kernels (bool): Let the backend compute in integers.

    Returns:
        Runtime: Takes images, gives the head's raw outputs.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it can't be read, mmgor did not write it, or a newer
            version did; if ``threads`` is no number of threads.
        ImportError: If the backend is not installed.
    """
    # A backend starts as many as it is told to, or hangs on the way.
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
        images (Tensor): To be run.
        spec (dict): ``input`` of the file's metadata: ``batch``, ``height``
            and ``width`` are None where the file takes any, and then sides
            are multiples of ``divisor``; files of former versions have no
            ``channels``, which are 3.

    Raises:
        ValueError: If it does not.
    """
    channels = spec.get('channels', COLOUR)
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
            'split or fill them, or export with another batch size.'
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
            'them at the right and the bottom.'
        )


def map_nested(function: Callable, *parts: Any) -> Any:
    """Call a function on the leaves of lists (or tuples) of one structure.

    Args:
        function (Callable): Takes one leaf of each.
        *parts: Nested lists.

    Returns:
        list: The results in the same structure.
    """
    if isinstance(parts[0], Sequence) and not isinstance(parts[0], str):
        return [map_nested(function, *items) for items in zip(*parts)]
    return function(*parts)
