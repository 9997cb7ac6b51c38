"""Write checkpoints with their checksums, and refuse damaged ones.

The SHA-256 of ``epoch_1.pth`` is in ``epoch_1.pth.sha256``.
"""

import zipfile
from hashlib import sha256
from pathlib import Path

from .atomic_write import write_text, writing

_CHUNK = 1 << 20
_ZIP_START = b'PK\x03\x04'


def checksum_path(path: str | Path) -> Path:
    """The file with the SHA-256 of a file; ``sha256sum -c`` can read it."""
    return Path(f'{path}.sha256')


def write_checkpoint(path: str | Path, content: bytes) -> None:
    """Write a file completely or not at all, and its SHA-256 beside it.

    Args:
        path (str | Path): The file to write; an old one is replaced.
        content (bytes): What ``torch.save`` made.
    """
    path = Path(path)
    with writing(path) as part:
        part.write_bytes(content)
        # With the old checksum beside it, the new file would count as damaged.
        checksum_path(path).unlink(missing_ok=True)
    checksum = sha256(content).hexdigest()
    write_text(checksum_path(path), f'{checksum}  {path.name}\n')


def check_intact(path: str | Path) -> None:
    """Make sure that a checkpoint has not changed since it was written.

    The SHA-256 beside the file is compared if there is one. Otherwise each
    tensor's CRC-32 is compared; torch writes it, but does not check it when it
    reads the file. Files that torch wrote before version 1.6 have no CRC-32.

    Args:
        path (str | Path): A checkpoint. If it does not exist, nothing is
            checked.

    Raises:
        ValueError: If the file is cut off or has changed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        return
    stored = checksum_path(path)
    fault = (
        _checksum_fault(path, stored) if stored.is_file() else _zip_fault(path)
    )
    if fault:
        raise ValueError(
            f'{path} is damaged: {fault}. Copy it again, or give another '
            'checkpoint.'
        )


def _checksum_fault(path: Path, stored: Path) -> str:
    wanted, found = stored.read_text().partition(' ')[0], sha256()
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    if found.hexdigest() == wanted:
        return ''
    return (
        f'its SHA-256 is {found.hexdigest()}, expected {wanted} from '
        f'{stored.name} (remove that file if another program has written the '
        'checkpoint since)'
    )


def _zip_fault(path: Path) -> str:
    with path.open('rb') as file:
        if file.read(len(_ZIP_START)) != _ZIP_START:
            return ''
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # zipfile raises whatever it meets
        return f'it is cut off or overwritten ({error})'
    return f'the CRC-32 of its entry {record} differs' if record else ''
