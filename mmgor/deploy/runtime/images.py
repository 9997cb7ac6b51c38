"""Images and videos as a user gives them: paths, arrays, lists, folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmdet.utils.misc import IMG_EXTENSIONS
from numpy.typing import NDArray

from mmgor.image_channels import COLOUR

#: The path of an image, or an image of shape (H, W, C) in BGR.
ImageInput = str | Path | NDArray
_EXPECTED = (
    "expected an image's path, a BGR image as a uint8 array of shape "
    '(H, W, 3) (or with the number of channels that the file takes), a list '
    'of those, or a folder, got {}.'
)


def list_images(inputs: ImageInput | Sequence[ImageInput]) -> list[ImageInput]:
    """List the images that a user gave; those of a folder sorted by name.

    Args:
        inputs (str | Path | ndarray | list): One image, several, or the path
            of a folder.

    Raises:
        FileNotFoundError: If a path does not exist.
        TypeError: If ``inputs`` has another type.
        ValueError: If a folder has no image.
    """
    if isinstance(inputs, np.ndarray):
        return [inputs]
    if not isinstance(inputs, (str, Path)):
        if not isinstance(inputs, Sequence):
            raise TypeError(_EXPECTED.format(type(inputs).__name__))
        return list(inputs)
    path = Path(inputs)
    if not path.exists():
        raise FileNotFoundError(
            f'image not found: {path}; expected an image or a folder of '
            f'images, relative to {Path.cwd()}.'
        )
    if path.is_file():
        return [path]
    images = [
        p
        for p in sorted(path.iterdir())
        if p.is_file() and p.suffix.lower() in IMG_EXTENSIONS
    ]
    if not images:
        raise ValueError(
            f'no image in {path}; expected files ending in '
            f'{", ".join(IMG_EXTENSIONS)}.'
        )
    return list(images)


def open_video(path: str | Path) -> mmcv.VideoReader:
    """Open a video, to read its frames in order and its ``fps``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it has no frame that can be decoded.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'video not found: {path}, relative to {Path.cwd()}.'
        )
    # Not every video states its number of frames, so one frame is read.
    if mmcv.VideoReader(str(path)).read() is None:
        raise ValueError(
            f'{path} has no frame that OpenCV can decode; expected a video '
            'such as .mp4 or .avi.'
        )
    return mmcv.VideoReader(str(path))


def as_input(image: ImageInput, channels: int = COLOUR) -> dict[str, Any]:
    """The dict that a test pipeline starts from.

    Args:
        image (str | Path | ndarray): A path, or an array of shape (H, W, C);
            with three channels it is in BGR and uint8. For a file that takes
            one channel, (H, W) is accepted too, and BGR is converted to
            grey.
        channels (int): Number of channels that the exported file takes.

    Raises:
        FileNotFoundError: If the image does not exist.
        TypeError: If ``image`` is neither a path nor an array.
        ValueError: If the array has another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        return dict(img=_checked(image, channels), img_id=0)
    if not isinstance(image, (str, Path)):
        raise TypeError(_EXPECTED.format(type(image).__name__))
    if not Path(image).is_file():
        raise FileNotFoundError(
            f'image not found: {image}, relative to {Path.cwd()}.'
        )
    return dict(img_path=str(image), img_id=0)


def _checked(image: NDArray, channels: int) -> NDArray:
    """An array that fits, with (H, W) for one channel."""
    if channels == 1 and image.ndim == 2:
        image = image[..., None]
    shape = image.shape
    convertible = channels == 1 and shape[2:] == (COLOUR,)
    if (
        len(shape) != 3
        or not image.size
        or (shape[2] != channels and not convertible)
    ):
        kind = 'a BGR image' if channels == COLOUR else 'an image'
        raise ValueError(
            f'expected {kind} of shape (H, W, {channels}), got an array of '
            f'shape {shape}.'
        )
    # Images of depth or heat may have other ranges.
    if image.dtype != np.uint8 and shape[2] == COLOUR:
        raise ValueError(
            f'expected an image of uint8 from 0 to 255, got {image.dtype}.'
        )
    if convertible:
        return mmcv.bgr2gray(image)
    # mmcv loads a grey file as (H, W).
    return image[..., 0] if channels == 1 else image


def as_bgr(image: NDArray) -> NDArray:
    """An image to draw on, shape (H, W, 3).

    Args:
        image (ndarray): Shape (H, W) or (H, W, C). Of more than three
            channels the first three are taken.
    """
    if image.ndim == 2 or image.shape[2] == 1:
        return mmcv.gray2bgr(image)
    return image[..., :COLOUR]
