"""Pictures and videos as a user gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmdet.utils.misc import IMG_EXTENSIONS
from numpy.typing import NDArray

Picture = str | Path | NDArray
_EXPECTED = (
    "expected a picture's path, a BGR picture as an array of shape (H, W, 3) "
    'and uint8, a list of those, or a folder, got {}.'
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


def as_input(picture: Picture) -> dict[str, Any]:
    """What a test pipeline starts from.

    Args:
        picture (str | Path | ndarray): A path, or shape (H, W, 3) in BGR and
            uint8.

    Raises:
        FileNotFoundError: If the picture is not there.
        TypeError: If it is neither a path nor an array.
        ValueError: If it can't be read or is no BGR picture.
    """
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise ValueError(
                'expected a BGR picture of shape (H, W, 3), got an array of '
                f'shape {picture.shape}.'
            )
        if picture.dtype != np.uint8:
            raise ValueError(
                'expected a picture of uint8 from 0 to 255, got '
                f'{picture.dtype}.'
            )
        return dict(img=picture, img_id=0)
    if not isinstance(picture, (str, Path)):
        raise TypeError(_EXPECTED.format(type(picture).__name__))
    if not Path(picture).is_file():
        raise FileNotFoundError(
            f'picture not found: {picture}, relative to {Path.cwd()}.'
        )
    return dict(img_path=str(picture), img_id=0)
