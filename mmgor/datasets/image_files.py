"""What the first and last bytes of an image file tell, without decoding it.

OpenCV makes nothing of a JPEG or PNG file whose end is missing, so that mmdet
ends the training there, or it makes half an image of it. To decode all images
of a data set before a training takes long.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

#: Images of a data set whose ends are read.
READ = 2000

_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8'
# How they end. The two bytes of a JPEG's end can't occur in its compressed
# data; cameras and editors may add other bytes behind them.
_ENDS = {_PNG: b'IEND', _JPEG: b'\xff\xd9'}
_TAIL = 65536  # bytes
_ORIENTATION = 274  # of EXIF; from 5 on, the image is turned by 90 degrees
# In the header of a PNG: width, height, bits and kind of colour.
_WIDTH, _HEIGHT = slice(16, 20), slice(20, 24)
_BITS, _COLOUR, _HEADER = 24, 25, 26
_ALPHA = (4, 6)

_T = TypeVar('_T')


@dataclass(frozen=True)
class ImageFile:
    """What an image file is like, as far as its ends tell.

    Attributes:
        fault (str): Why it can't be decoded; '' if nothing speaks against it.
        size (tuple[int, int], optional): Width and height in pixels after
            EXIF's rotation; None for formats other than JPEG and PNG.
        lost (str): What mmdet drops when it loads three channels of 8 bits;
            '' if nothing.
    """

    fault: str = ''
    size: tuple[int, int] | None = None
    lost: str = ''


def look_at(file: str | Path) -> ImageFile:
    """Read the ends of an image file.

    Args:
        file (str | Path): It exists.
    """
    with open(file, 'rb') as stream:
        head = stream.read(_HEADER)
        length = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, length - _TAIL))
        tail = stream.read()
    if not length:
        return ImageFile('is an empty file')
    kind = next((start for start in _ENDS if head.startswith(start)), None)
    if kind is None:
        return ImageFile()
    if len(head) < _HEADER or _ENDS[kind] not in tail:
        return ImageFile('is cut off: its end is missing')
    return _png(head) if kind == _PNG else _jpeg(file)


def _png(head: bytes) -> ImageFile:
    width, height = (
        int.from_bytes(head[part], 'big') for part in (_WIDTH, _HEIGHT)
    )
    lost = [
        *(['the lower 8 of 16 bits'] if head[_BITS] == 16 else []),
        *(['an alpha channel'] if head[_COLOUR] in _ALPHA else []),
    ]
    return ImageFile('', (width, height), ' and '.join(lost))


def _jpeg(file: str | Path) -> ImageFile:
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except (OSError, SyntaxError, UnidentifiedImageError, ValueError) as error:
        return ImageFile(f'has a damaged header ({error})')
    return ImageFile('', (height, width) if turned else (width, height))


def spread(items: Sequence[_T], count: int) -> list[_T]:
    """Up to ``count`` of the items, at equal distances.

    Example:
        >>> spread('abcdef', 3)
        ['a', 'c', 'e']
    """
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
