"""What a plan file may hold."""

from ast import literal_eval
from pathlib import Path
from typing import Any

import jsonschema
import yaml

# Names become folders.
_NAME = dict(type='string', pattern=r'^[A-Za-z0-9][A-Za-z0-9._+-]*$')
_COUNT = dict(type='integer', minimum=0)


def _named(values: dict, least: int = 0) -> dict:
    return dict(
        type='object',
        propertyNames=_NAME,
        additionalProperties=values,
        minProperties=least,
    )


def _listed(values: dict) -> dict:
    return dict(type='array', items=values, minItems=1, uniqueItems=True)


def _object(required: list[str], **properties: dict) -> dict:
    return dict(
        type='object',
        properties=properties,
        required=required,
        additionalProperties=False,
    )


_PATHS = dict(type=['string', 'null'])
_EPOCHS = dict(type=['integer', 'null'], minimum=0)
_ARM = _object(
    ['config'],
    config=dict(type='string'),
    options=dict(type='object'),
    bits=_listed(_NAME),
    start=_NAME,
    teachers=_named(_NAME),
    epochs=_EPOCHS,
)
_PLAN = _object(
    ['data', 'seeds', 'arms'],
    data=_named(_PATHS, 1),
    weights=_named(_PATHS),
    seeds=_listed(_COUNT),
    epochs=_EPOCHS,
    workers=dict(type='integer', minimum=1),
    threads=dict(type='integer', minimum=1),
    bits=_named(dict(type='object')),
    teachers=_named(_ARM),
    arms=_named(_ARM, 1),
)


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


def read_plan_file(file: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: If it is not a YAML file.
    """
    if not file.is_file():
        raise ValueError(f'expected a plan, a YAML file, got {file}.')
    try:
        return yaml.load(file.read_text(), Loader=UniqueKeysLoader)
    except yaml.YAMLError as error:
        raise ValueError(f'{file} is not a YAML file: {error}') from error


def check_plan(content: Any) -> None:
    """Check the keys of a plan and the types of their values.

    Raises:
        ValueError: With the first place that is wrong.
    """
    errors = jsonschema.Draft202012Validator(_PLAN).iter_errors(content)
    for error in sorted(errors, key=lambda error: error.json_path):
        place = error.json_path.replace('$', 'plan')
        known = ''
        if error.validator == 'additionalProperties':
            known = (
                f'; expected keys among {sorted(error.schema["properties"])}'
            )
        raise ValueError(f'{place}: {error.message}{known}')


def option_values(value: Any, place: str) -> Any:
    """Options of ``Config.merge_from_dict`` as YAML writes them: a text in
    parentheses, ``(256,256)``, is a tuple.

    Raises:
        ValueError: If a text looks like a number: YAML reads 1e-3 as text.
    """
    if isinstance(value, dict):
        return {
            str(key): option_values(part, f'{place}, {key}')
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [option_values(part, place) for part in value]
    if not isinstance(value, str):
        return value
    try:
        if value.startswith('(') and value.endswith(')'):
            return literal_eval(value)
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f'{place}: expected a tuple such as (256,256), got {value!r}.'
        ) from error
    try:
        float(value)
    except ValueError:
        return value
    raise ValueError(
        f'{place}: {value!r} is text in YAML; write numbers without quotes '
        'and with a point, 1.0e-3.'
    )
