"""The values of a plan file, checked one by one."""

import re
from ast import literal_eval
from pathlib import Path
from typing import Any

import yaml

# Names become folders.
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._+-]*')


class UniqueKeysLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping; YAML takes the last."""

    # Before `<<` is filled in, whose keys may be set anew.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen and key.value != '<<':
                raise yaml.MarkedYAMLError(
                    problem=f'{key.value!r} stands twice; rename one',
                    problem_mark=key.start_mark,
                )
            seen.add((key.tag, str(key.value)))
        return node


def check_keys(
    entry: Any, known: set[str], needed: set[str], where: str | Path
) -> None:
    """Make sure of a mapping with these keys.

    Raises:
        ValueError: If it is none, a key is unknown or one is missing.
    """
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: expected a mapping, got {entry!r}.')
    unknown, missing = set(entry) - known, needed - set(entry)
    if unknown:
        raise ValueError(
            f'{where}: unknown {sorted(map(str, unknown))}; expected some of '
            f'{sorted(known)}.'
        )
    if missing:
        raise ValueError(f'{where}: {sorted(missing)} missing.')


def check_name(name: Any, what: str) -> str:
    """Give the name back.

    Raises:
        ValueError: If it cannot be the name of a folder.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f'{what} {name!r}: expected a name of letters, digits and . _ + '
            '-, starting with a letter or digit (in quotes, if YAML would '
            'read it as a number).'
        )
    return name


def mapping_of(entry: dict, key: str) -> dict:
    """``entry[key]``, {} if it is not there.

    Raises:
        ValueError: If it is no mapping.
    """
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f'{key}: expected a mapping, got {value!r}.')
    return value


def list_of(value: Any, what: str) -> list:
    """Give the list back.

    Raises:
        ValueError: If it is none, empty, or holds a value twice.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(
            f'{what}: expected a list, one value in brackets: [0], [W4A4]; '
            f'got {value!r}.'
        )
    if len({str(v) for v in value}) < len(value):
        raise ValueError(f'{what}: {value} holds a value twice.')
    return value


def path_of(value: Any, what: str) -> Path:
    """The path that a text is.

    Raises:
        ValueError: If it is no text.
    """
    if not isinstance(value, str):
        raise ValueError(f'{what}: expected a path, got {value!r}.')
    return Path(value)


def whole_number(value: Any, what: str, least: int) -> int:
    """Give the number back.

    Raises:
        ValueError: If it is no whole number, or less than ``least``.
    """
    if type(value) is not int or value < least:
        raise ValueError(
            f'{what}: expected a whole number of at least {least}, got '
            f'{value!r}.'
        )
    return value


def option_values(options: Any, where: str) -> dict[str, Any]:
    """Options of ``Config.merge_from_dict`` as YAML writes them.

    A text in parentheses, ``(256,256)``, is a tuple.

    Raises:
        ValueError: If it is no mapping, or a text is meant to be a number:
            YAML reads 1e-3 as text.
    """
    if not isinstance(options, dict):
        raise ValueError(
            f'{where}: expected options as a mapping, got {options!r}.'
        )
    return {
        str(key): _option(value, f'{where}, {key}')
        for key, value in options.items()
    }


def _option(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return option_values(value, where)
    if isinstance(value, list):
        return [_option(part, where) for part in value]
    if not isinstance(value, str):
        return value
    if value.startswith('(') and value.endswith(')'):
        try:
            return literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise ValueError(
                f'{where}: expected a tuple such as (256,256), got {value!r}.'
            ) from error
    try:
        float(value)
    except ValueError:
        return value
    raise ValueError(
        f'{where}: {value!r} is text in YAML; write numbers without quotes '
        'and with a point, 1.0e-3.'
    )
