"""The metadata and the checksum behind an ExecuTorch program.

The header of a ``.pte`` file says where the program ends, and ExecuTorch reads
nothing after that. So a trailer follows: the metadata, its number of bytes, a
mark, and the SHA-256 of all bytes before it.
"""

from hashlib import sha256
from pathlib import Path

from .checksum import changed

_IDENTIFIER = slice(4, 6), b'ET'
_MARK = b'mmgor\0\0\1'
_COUNT_BYTES = 8
_DIGEST_BYTES = sha256().digest_size


def pack_pte(program: bytes, text: str) -> bytes:
    """The bytes of a ``.pte`` file with metadata and checksum.

    Args:
        program (bytes): The program.
        text (str): Metadata as JSON.
    """
    data = text.encode()
    count = len(data).to_bytes(_COUNT_BYTES, 'little')
    content = program + data + count + _MARK
    return content + sha256(content).digest()


def pte_text(path: Path) -> str | None:
    """The metadata of a ``.pte`` file.

    Args:
        path (Path): The file.

    Returns:
        str | None: JSON; None for another program's file.

    Raises:
        ValueError: If it is no ``.pte`` file, or has changed since it was
            written.
    """
    content = path.read_bytes()
    place, identifier = _IDENTIFIER
    if content[place] != identifier:
        raise ValueError(
            f'{path} could not be read as an ExecuTorch program: it has no '
            'ET mark. Export it again.'
        )
    before, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not before.endswith(_MARK):
        return None
    if sha256(before).digest() != digest:
        raise changed(path)
    end = len(before) - len(_MARK) - _COUNT_BYTES
    count = int.from_bytes(before[end : end + _COUNT_BYTES], 'little')
    # Anyone may have written it: what is no UTF-8 is no JSON either.
    return before[max(end - count, 0) : end].decode(errors='replace')
