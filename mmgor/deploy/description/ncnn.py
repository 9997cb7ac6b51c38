"""The metadata and the checksums inside a ``.param`` file of ncnn.

ncnn reads as many layers as the second line says, and nothing after them. So
three lines follow: the metadata, the SHA-256 of the ``.bin`` file, and that of
the text before.
"""

from hashlib import sha256
from pathlib import Path

from .checksum import changed
from .metadata import KEY

#: First word of the line with the checksum of the ``.bin`` file.
BIN_KEY = 'mmgor_bin_sha256'
#: First word of the last line, which has the checksum of all before it.
TEXT_KEY = 'mmgor_sha256'


def describe(layers: str, weights: bytes, text: str) -> str:
    """Add metadata and checksums to the layers of a ``.param`` file.

    Args:
        layers (str): The lines that ncnn reads.
        weights (bytes): Content of the ``.bin`` file.
        text (str): Metadata as JSON, in one line.

    Returns:
        str: Content of the ``.param`` file.
    """
    before = f'{layers}{KEY} {text}\n{BIN_KEY} {_checksum(weights)}\n'
    return f'{before}{TEXT_KEY} {_checksum(before.encode())}\n'


def ncnn_text(path: Path) -> str | None:
    """The metadata of a ``.param`` file.

    Args:
        path (Path): The file; its ``.bin`` is beside it.

    Returns:
        str | None: JSON; None for another program's file.

    Raises:
        ValueError: If one of the two files has changed since it was written,
            or the ``.bin`` is missing.
    """
    lines = path.read_bytes().decode(errors='replace').splitlines(True)
    parts = [line.rstrip('\n').partition(' ') for line in lines[-3:]]
    words = {key: value for key, _, value in parts}
    if KEY not in words:
        return None
    before = ''.join(lines[:-1])
    if words.get(TEXT_KEY) != _checksum(before.encode()):
        raise changed(path)
    weights = path.with_suffix('.bin')
    found = _checksum(weights.read_bytes()) if weights.is_file() else 'none'
    if words.get(BIN_KEY) != found:
        raise ValueError(
            f'{weights} is not the file that was written with {path.name} '
            '(it is missing, or its SHA-256 does not match). Copy both files '
            'of one export, or export again.'
        )
    return words[KEY]


def _checksum(content: bytes) -> str:
    return sha256(content).hexdigest()
