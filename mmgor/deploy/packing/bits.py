"""Store integers of 2 to 8 bits without gaps in a row of bytes.

Integer k of b bits is in the bits ``k * b`` to ``k * b + b - 1`` of the row,
in two's complement, lowest bit first. Bit p of the row is bit ``p % 8`` of
byte ``p // 8``, counted from the lowest. Unused bits of the last byte are 0.
"""

import numpy as np
from numpy.typing import NDArray


def pack_bits(integers: NDArray, bits: int) -> bytes:
    """Pack integers of any shape, in C order.

    Args:
        integers (NDArray): Signed integers.
        bits (int): Bits per integer, 2 to 8.

    Returns:
        bytes: ``ceil(integers.size * bits / 8)`` bytes.

    Raises:
        ValueError: If an integer does not fit into the bits.
    """
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    outside = (integers < lowest) | (integers > highest)
    if outside.any():
        raise ValueError(
            f'expected integers of {bits} bits, {lowest} to {highest}, got '
            f'{integers[outside][0]}.'
        )
    low_bytes = integers.astype(np.int8).view(np.uint8).reshape(-1, 1)
    rows = np.unpackbits(low_bytes, axis=1, bitorder='little')[:, :bits]
    return np.packbits(rows, bitorder='little').tobytes()


def unpack_bits(data: bytes, bits: int, count: int) -> NDArray[np.int32]:
    """Undo :func:`pack_bits`.

    Args:
        data (bytes): ``ceil(count * bits / 8)`` bytes.
        bits (int): Bits per integer, 2 to 8.
        count (int): Number of integers.

    Returns:
        NDArray[np.int32]: Shape (count, ).
    """
    row = np.frombuffer(data, np.uint8)
    flat = np.unpackbits(row, count=count * bits, bitorder='little')
    unsigned = np.packbits(flat.reshape(count, bits), 1, bitorder='little')
    values = unsigned.reshape(count).astype(np.int32)
    return values - ((values >> (bits - 1)) << bits)
