"""Digests beside checkpoints, and damage that they and others show."""

import zipfile
from hashlib import sha256
from pathlib import Path

from .atomic_write import write_text, writing

_CHUNK = 1 << 20
_ZIP_START = b'PK\x03\x04'


def digest_path(path: str | Path) -> Path:
    """Where the SHA-256 of a file is: ``sha256sum -c`` reads it."""
    return Path(f'{path}.sha256')


def write_checkpoint(path: str | Path, content: bytes) -> None:
    """Write a file as a whole, and its SHA-256 beside it.

    Args:
        path (str | Path): Replaces an old one.
        content (bytes): Of ``torch.save``.
    """
    path = Path(path)
    with writing(path) as part:
        part.write_bytes(content)
        # With the new file, the old digest would say that it is damaged.
        digest_path(path).unlink(missing_ok=True)
    digest = sha256(content).hexdigest()
    write_text(digest_path(path), f'{digest}  {path.name}\n')


def check_intact(path: str | Path) -> None:
    """Make sure that a file is as it was written.

    By the digest beside it, if there is one, else by the CRC-32 that torch
    writes with every tensor and does not look at when it reads. Files of
    torch before 1.6 without a digest have neither.

    Args:
        path (str | Path): A checkpoint; one that is not there is not looked
            at.

    Raises:
        ValueError: If it is cut off or has changed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        return
    stored = digest_path(path)
    fault = (
        _digest_fault(path, stored) if stored.is_file() else _zip_fault(path)
    )
    if fault:
        raise ValueError(
            f'{path} is damaged: {fault}. Copy it again, or give another '
            'checkpoint.'
        )


def _digest_fault(path: Path, stored: Path) -> str:
    wanted, digest = stored.read_text().partition(' ')[0], sha256()
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() == wanted:
        return ''
    return (
        f'its SHA-256 is {digest.hexdigest()}, expected {wanted} of '
        f'{stored.name} (remove that, if another program wrote the '
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
    return f'the CRC-32 of its part {record} is another' if record else ''
