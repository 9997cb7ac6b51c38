"""Budgets of the command line."""

import re
from dataclasses import dataclass

from mmgor.io.config_values import number
from mmgor.quantization.sensitivity import BITS

_UNITS = {'': 1, 'b': 1, 'kb': 1e3, 'mb': 1e6, 'kib': 2**10, 'mib': 2**20}


@dataclass(frozen=True)
class Budget:
    """What the bits of a student have to keep to; one of these.

    Attributes:
        mean_bits (float, optional): Most bits per weight and per input value,
            on average.
        size (float, optional): Most bytes of the packed file. The inputs keep
            the bits that the config gives them.
        drop (float, optional): Most mAP, in points, that calibration alone
            may lose.
    """

    mean_bits: float | None = None
    size: float | None = None
    drop: float | None = None

    def __post_init__(self) -> None:
        given = [self.mean_bits, self.size, self.drop]
        if sum(value is not None for value in given) != 1:
            raise ValueError(
                'expected one budget: --mean-bits 4, --bytes 0.6MB or '
                '--budget "mAP 0.5".'
            )
        if self.mean_bits is not None:
            number(
                '--mean-bits', self.mean_bits, f'[{min(BITS)}, {max(BITS)}]'
            )


def parse_size(text: str) -> float:
    """Bytes.

    Raises:
        ValueError: If the text is no size.

    Example:
        >>> parse_size('0.6MB')
        600000.0
    """
    match = re.fullmatch(r'\s*([\d.]+)\s*([a-zA-Z]*)\s*', text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(
            f'--bytes expected a size such as 0.6MB, 600kB or 600000, got '
            f'{text!r}.'
        )
    return number('--bytes', _float('--bytes', match[1]), '(0, inf)') * unit


def parse_drop(text: str) -> float:
    """Points of mAP.

    Raises:
        ValueError: If the text is no such budget.

    Example:
        >>> parse_drop('mAP 0.5')
        0.5
    """
    match = re.fullmatch(r'\s*mAP\s*([\d.]+)\s*', text, re.IGNORECASE)
    if match is None:
        raise ValueError(
            '--budget expected the most mAP that may be lost, such as "mAP '
            f'0.5", got {text!r}.'
        )
    return number('--budget', _float('--budget', match[1]), '(0, 100]')


def _float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f'{name} expected a number, got {text!r}.') from error
