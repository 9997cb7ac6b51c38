"""Pictures and videos as a user gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmdet.utils.misc import IMG_EXTENSIONS
from numpy.typing import NDArray

from mmgor.image_channels import COLOUR

Picture = str | Path | NDArray
_EXPECTED = (
    "expected a picture's path, a BGR picture as an array of shape (H, W, 3) "
    'and uint8 (or with the channels of the file), a list of those, or a '
    'folder, got {}.'
)


def list_pictures(inputs: Picture | Sequence[Picture]) -> list[Picture]:
    """What a user gave, one by one; a folder's pictures by name.

    Raises:
        FileNotFoundError: If a path does not exist.
        TypeError: If it is nothing of what is expected.
        ValueError: If a folder has no picture.
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
            f'picture not found: {path}; expected a picture or a folder of '
            f'pictures, relative to {Path.cwd()}.'
        )
    if path.is_file():
        return [path]
    pictures = [
        p
        for p in sorted(path.iterdir())
        if p.is_file() and p.suffix.lower() in IMG_EXTENSIONS
    ]
    if not pictures:
        raise ValueError(
            f'no picture in {path}; expected files ending in '
            f'{", ".join(IMG_EXTENSIONS)}.'
        )
    return list(pictures)


def open_video(path: str | Path) -> mmcv.VideoReader:
    """A video's frames, and its ``fps``.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it has no frame that can be decoded.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'video not found: {path}, relative to {Path.cwd()}.'
        )
    # A count of frames is not in every video.
    if mmcv.VideoReader(str(path)).read() is None:
        raise ValueError(
            f'{path} has no frame that OpenCV can decode; expected a video '
            'such as .mp4 or .avi.'
        )
    return mmcv.VideoReader(str(path))


def as_input(picture: Picture, channels: int = COLOUR) -> dict[str, Any]:
    """What a test pipeline starts from.

    Args:
        picture (str | Path | ndarray): A path, or shape (H, W, C): in BGR
            and uint8 if C is 3. Of one channel (H, W) will do, and BGR is
            turned into grey.
        channels (int): C that the file takes.

    Raises:
        FileNotFoundError: If the picture is not there.
        TypeError: If it is neither a path nor an array.
        ValueError: If it can't be read or has another shape or dtype.
    """
    if isinstance(picture, np.ndarray):
        return dict(img=_checked(picture, channels), img_id=0)
    if not isinstance(picture, (str, Path)):
        raise TypeError(_EXPECTED.format(type(picture).__name__))
    if not Path(picture).is_file():
        raise FileNotFoundError(
            f'picture not found: {picture}, relative to {Path.cwd()}.'
        )
    return dict(img_path=str(picture), img_id=0)


def _checked(picture: NDArray, channels: int) -> NDArray:
    if channels == 1 and picture.ndim == 2:
        picture = picture[..., None]
    shape = picture.shape
    convertible = channels == 1 and shape[2:] == (COLOUR,)
    if (
        len(shape) != 3
        or not picture.size
        or (shape[2] != channels and not convertible)
    ):
        kind = 'BGR picture' if channels == COLOUR else 'picture'
        raise ValueError(
            f'expected a {kind} of shape (H, W, {channels}), got an array of '
            f'shape {shape}.'
        )
    # Depth and heat may have other ranges.
    if picture.dtype != np.uint8 and shape[2] == COLOUR:
        raise ValueError(
            f'expected a picture of uint8 from 0 to 255, got {picture.dtype}.'
        )
    if convertible:
        return mmcv.bgr2gray(picture)
    # As mmcv loads a grey file.
    return picture[..., 0] if channels == 1 else picture


def as_bgr(picture: NDArray) -> NDArray:
    """A picture for the eye, shape (H, W, 3).

    Args:
        picture (ndarray): Shape (H, W) or (H, W, C); of more than three
            channels the first three are taken.
    """
    if picture.ndim == 2 or picture.shape[2] == 1:
        return mmcv.gray2bgr(picture)
    return picture[..., :COLOUR]
