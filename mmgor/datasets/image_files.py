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

from PIL import Image

#: Images of a data set whose ends are read.
READ = 2000

_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8'
# How they end. The two bytes of a JPEG's end can't occur in its compressed
# data; cameras and editors may add other bytes behind them.
_ENDS = {_PNG: b'IEND', _JPEG: b'\xff\xd9'}
_TAIL = 65536  # bytes
_CUT = 'is cut off: its end is missing'
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
            EXIF's rotation; None for formats other than JPEG and PNG, and
            for a JPEG of more pixels than Pillow opens.
        lost (str): What mmdet drops when it loads three channels of 8 bits;
            '' if nothing.
    """

    fault: str = ''
    size: tuple[int, int] | None = None
    lost: str = ''


def look_at(file: str | Path) -> ImageFile:
    """Read the ends of an image file.

    A JPEG whose end is not in its last 64 KiB is decoded: phones put a film
    behind it.

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
    ended = _ENDS[kind] in tail
    if len(head) < _HEADER or (kind == _PNG and not ended):
        return ImageFile(_CUT)
    return _png(head) if kind == _PNG else _jpeg(file, ended)


def _png(head: bytes) -> ImageFile:
    width, height = (
        int.from_bytes(head[part], 'big') for part in (_WIDTH, _HEIGHT)
    )
    lost = [
        *(['the lower 8 of 16 bits'] if head[_BITS] == 16 else []),
        *(['an alpha channel'] if head[_COLOUR] in _ALPHA else []),
    ]
    return ImageFile('', (width, height), ' and '.join(lost))


def _jpeg(file: str | Path, ended: bool) -> ImageFile:
    try:
        with Image.open(file) as image:
            if not ended:
                image.load()
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except Image.DecompressionBombError:  # OpenCV opens larger ones
        return ImageFile()
    except (OSError, SyntaxError, ValueError) as error:
        damaged = f'has a damaged header ({error})'
        return ImageFile(damaged if ended else _CUT)
    return ImageFile('', (height, width) if turned else (width, height))


def spread(items: Sequence[_T], count: int) -> list[_T]:
    """Up to ``count`` of the items, at equal distances.

    Example:
        >>> spread('abcdef', 3)
        ['a', 'c', 'e']
    """
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
