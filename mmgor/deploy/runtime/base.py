"""``Runtime``: an exported file that a backend has loaded."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgor.deploy.head_outputs import map_nested


class Runtime(ABC):
    """An exported file that a backend has loaded.

    Args:
        path (Path): The file.
        metadata (dict): Its metadata, from :func:`read_metadata`.
        threads (int, optional): Number of threads per call. By default the
            backend chooses.
        integer_kernels (bool): See :func:`.open_runtime`.

    Raises:
        ValueError: If the backend can't open the file.
    """

    #: Whether the backend has no float kernels for such a file.
    integer_only = False

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
