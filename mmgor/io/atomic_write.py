"""Files that are written as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A name to write to; what is there at the end becomes ``path``.

    The new file is in the same folder and on the disk before it replaces the
    old one, so that a full disk or a kill at any point leaves the old file,
    or none. An error leaves nothing else behind; a kill leaves a hidden file.

    Args:
        path (str | Path): Its folder is made. Devices and pipes, which can't
            be replaced, are written in place.

    Yields:
        Path: Has the suffix of ``path``, which many writers go by.

    Raises:
        OSError: If the disk is full.
    """
    target = Path(path).resolve()  # a link goes on to point at the file
    if target.exists() and not target.is_file():
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(temporary_name(target.name, str(os.getpid())))
    try:
        yield part
        with part.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def temporary_name(name: str, writer: str) -> str:
    """Of a file that is not complete; ``writer`` may be a glob pattern.

    Example:
        >>> temporary_name('epoch_1.pth', '4711')
        '.epoch_1.4711.tmp.pth'
    """
    path = Path(name)
    return f'.{path.stem}.{writer}.tmp{path.suffix}'


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8; see :func:`writing`."""
    with writing(path) as part:
        part.write_text(text, encoding='utf-8')


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image in the format of the name's suffix; see :func:`writing`.

    ``cv2.imwrite`` says nothing of a disk that is full.

    Args:
        path (str | Path): Such as ``street.jpg``.
        image (ndarray): Shape (H, W, 3), BGR, uint8.
    """
    _, content = cv2.imencode(Path(path).suffix, image)
    with writing(path) as part:
        part.write_bytes(content.tobytes())
