"""Write files completely or not at all.

A full disk or a killed process never leaves half a file under its final name.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary file to write to, which replaces ``path`` at the end.

    The temporary file is in the same folder, and its content is on the disk
    before it replaces the old file. So a full disk or a kill at any point
    leaves the old file, or no file if there was none before. An error removes
    the temporary file; a kill leaves it behind as a hidden file.

    Args:
        path (str | Path): The file to write. Its folder is created. Devices
            and pipes can't be replaced and are written in place.

    Yields:
        Path: The temporary file. It has the suffix of ``path``, since many
        writers choose the format by it.

    Raises:
        OSError: If the disk is full.
    """
    target = Path(path).resolve()  # a link keeps pointing at the file
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
    """Name of the temporary file that becomes ``name``.

    Args:
        name (str): Name of the final file.
        writer (str): Distinguishes the processes that write this file, such
            as a process id. With '*' the result is a glob pattern for all.

    Example:
        >>> temporary_name('epoch_1.pth', '4711')
        '.epoch_1.4711.tmp.pth'
    """
    path = Path(name)
    return f'.{path.stem}.{writer}.tmp{path.suffix}'


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8, completely or not at all."""
    with writing(path) as part:
        part.write_text(text, encoding='utf-8')


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image completely or not at all.

    Unlike ``cv2.imwrite``, this raises an error if the disk is full.

    Args:
        path (str | Path): Its suffix decides the format, e.g. ``street.jpg``.
        image (ndarray): BGR, uint8, shape (H, W, 3).

    Raises:
        OSError: If the disk is full.
    """
    _, content = cv2.imencode(Path(path).suffix, image)
    with writing(path) as part:
        part.write_bytes(content.tobytes())
