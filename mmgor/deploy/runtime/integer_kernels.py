"""Decides whether ONNX Runtime and OpenVINO compute a file in integers."""

import platform
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmgor.quantization.quantizers.base import MAX_BITS

# Largest weights whose products with 8-bit activations do not saturate.
_SAFE_BITS = 7


def has_vnni() -> bool:
    """Whether an x86 CPU adds products of 8-bit integers in 32 bits."""
    info = Path('/proc/cpuinfo')
    return info.is_file() and 'vnni' in info.read_text()


def saturates(metadata: dict[str, Any]) -> bool:
    """Whether integer kernels clip sums of a file on this CPU.

    x86 CPUs without VNNI add two products of uint8 and int8 in 16 bits. With
    weights of 7 bits the sum fits.
    """
    # A file may say anything.
    found = [layer.get('w_bits') for layer in metadata['quantization']]
    widest = max([b for b in found if isinstance(b, int)], default=MAX_BITS)
    x86 = platform.machine().lower() in ('x86_64', 'amd64', 'i386', 'i686')
    return x86 and widest > _SAFE_BITS and not has_vnni()


def integer_by_default(metadata: dict[str, Any], path: Path) -> bool:
    """Whether integer kernels compute what was trained.

    They do where every tensor is rounded, unless sums saturate. Otherwise
    tensors that training left in float, such as sums, would be rounded.

    Args:
        metadata (dict): Metadata of the file.
        path (Path): The file, for the message.
    """
    if metadata['tensors'] != 'all':
        return False
    if saturates(metadata):
        print_log(
            f'{path} is computed in float32: this CPU has no VNNI, and its '
            'sums of products of 8-bit integers saturate. Train with weights '
            f'of {_SAFE_BITS} bits (w_bits={_SAFE_BITS}, first_last_bits='
            f'{_SAFE_BITS}), or set integer_kernels=True for speed alone.',
            logger='current',
        )
        return False
    return True
