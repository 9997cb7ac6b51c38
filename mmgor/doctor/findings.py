"""What a check found, and how it is shown."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mmengine.logging import MMLogger

OK, WARNING, ERROR = 'ok', 'warning', 'error'
_INDENT = max(map(len, (OK, WARNING, ERROR))) + 2


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status (str): 'ok', 'warning' (training runs, but not as it should) or
            'error' (it does not run, or learns nothing).
        what (str): What was checked.
        found (str): What it is like.
        mend (str): What to type or to change; '' if nothing.
    """

    status: str
    what: str
    found: str
    mend: str = ''

    def __str__(self) -> str:
        text = f'{self.status:{_INDENT}}{self.what}: {self.found}'
        return f'{text}\n{"":{_INDENT}}-> {self.mend}' if self.mend else text


def guarded(
    what: str, check: Callable[[], Iterable[Finding]], mend: str = ''
) -> Iterator[Finding]:
    """The findings of a check, and an error if it raises.

    Args:
        what (str): What is checked.
        check (Callable): Makes the findings.
        mend (str): What to do if it raises.

    Yields:
        Finding: Each as soon as it is known.
    """
    try:
        yield from check()
    except Exception as error:  # whatever is broken
        text = f'{type(error).__name__}: {error}'
        yield Finding(ERROR, what, text, mend)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings in the block: findings say the same."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def summary(findings: Iterable[Finding]) -> str:
    """How many checks had which status.

    Example:
        >>> summary([Finding('ok', 'a', 'b'), Finding('error', 'c', 'd')])
        '2 checks: 1 ok, 0 warnings, 1 error'
    """
    statuses = [finding.status for finding in findings]
    counts = [statuses.count(status) for status in (OK, WARNING, ERROR)]
    return (
        f'{len(statuses)} checks: {counts[0]} ok, '
        f'{_counted(counts[1], "warning")}, {_counted(counts[2], "error")}'
    )


def _counted(count: int, noun: str) -> str:
    return f'{count} {noun}{"" if count == 1 else "s"}'
