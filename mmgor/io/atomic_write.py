"""Write files completely or not at all.

A full disk or a killed process never leaves half a file under its final name.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

#: Names of :func:`temporary_name` that have a process id.
_TEMPORARY = re.compile(r'\..+\.(\d+)\.tmp(\.[^.]*)?')


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
    with writing_together(path) as (part,):
        yield part


@contextmanager
def writing_together(*paths: str | Path) -> Iterator[list[Path]]:
    """As :func:`writing`, for files that belong together.

    None is replaced before all are on the disk. Only a kill between two
    replacements leaves some old and some new files.

    Args:
        *paths (str | Path): The files to write.

    Yields:
        list[Path]: A temporary file for each.

    Raises:
        OSError: If the disk is full.
    """
    # A link keeps pointing at its file.
    targets = [Path(path).resolve() for path in paths]
    parts = [_temporary(target) for target in targets]
    new = [pair for pair in zip(targets, parts) if pair[0] != pair[1]]
    try:
        yield parts
        for _, part in new:
            with part.open('rb') as file:
                os.fsync(file.fileno())
        for target, part in new:
            os.replace(part, target)
    finally:
        for _, part in new:
            part.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """A file beside the target, whose folder is made; or a device itself."""
    if target.exists() and not target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(temporary_name(target.name, str(os.getpid())))


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


def leftovers(folder: Path) -> list[Path]:
    """Temporary files whose writers were killed.

    Args:
        folder (Path): Is looked at, without its folders.

    Returns:
        list[Path]: Those whose process does not live on this machine, or
        would be this one: in a container, a new start may get the process id
        of the last one.
    """
    found = []
    for path in folder.glob(temporary_name('*', '*') + '*'):
        name = _TEMPORARY.fullmatch(path.name)
        if name and path.is_file() and not _writes(int(name[1])):
            found.append(path)
    return found


def _writes(process: int) -> bool:
    """Whether another process of this id lives."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


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
