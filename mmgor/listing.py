"""``listed``: the first entries of a list, for a message."""

from collections.abc import Sequence


def listed(
    entries: Sequence[str], separator: str = ', ', most: int = 5
) -> str:
    """Join the first entries, and say how many more there are.

    Args:
        entries (Sequence[str]): Names or sentences.
        separator (str): Goes between two of them.
        most (int): Number of entries that are shown.

    Example:
        >>> listed(['stem', 'neck', 'head'], most=2)
        'stem, neck and 1 more'
        >>> listed(['stem', 'neck', 'head'], '; ', 2)
        'stem; neck; and 1 more'
    """
    text, more = separator.join(entries[:most]), len(entries) - most
    if more <= 0:
        return text
    joint = ' ' if separator == ', ' else separator
    return f'{text}{joint}and {more} more'
