"""Checks the settings of a teacher."""

from typing import Any

from mmgor.io.config_values import nearest

NEEDED = ['config', 'checkpoint']
OPTIONS = ['classes', 'dtype', 'channels_last', 'offload', 'cache']


def check_arguments(name: Any, spec: Any) -> None:
    """Refuse what is no dict of a teacher's settings."""
    if not isinstance(spec, dict):
        raise ValueError(
            f'teacher {name!r} is {spec!r}; expected '
            'dict(config=..., checkpoint=...).'
        )
    known = [*NEEDED, *OPTIONS]
    if not set(NEEDED) <= set(spec) <= set(known):
        odd = [key for key in spec if key not in known]
        raise ValueError(
            f'teacher {name!r} has the keys {sorted(map(str, spec))}; '
            "expected 'config' and 'checkpoint', and any of "
            f'{OPTIONS}{nearest(odd, known)}.'
        )


def check_name(name: Any) -> None:
    """Refuse names of teachers that would break the log."""
    if not isinstance(name, str):
        raise ValueError(
            f'the name of a teacher is {name!r}; expected a string, e.g. '
            f"teachers={{'teacher{name}': dict(config=..., "
            'checkpoint=...)}.'
        )
    if 'loss' in name:
        raise ValueError(
            f"teacher {name!r}: expected a name without 'loss', since "
            'values logged under it would be added to the loss.'
        )


def class_names(teacher: str, classes: Any) -> tuple[str, ...]:
    """Check the class names that a config gives to a teacher."""
    given = classes if isinstance(classes, (list, tuple)) and classes else [0]
    if not all(isinstance(name, str) for name in given):
        example = classes if isinstance(classes, str) else 'person'
        raise ValueError(
            f'teacher {teacher!r} has classes={classes!r}; expected a list, '
            f'e.g. classes=[{example!r}].'
        )
    return tuple(given)
