"""The ``model`` of a student's config, on top of the float detector's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmgor.io.config_reader import type_name
from mmgor.registry import MODELS

from .parts import ARGUMENTS, OTHERS, Part, module_configs
from .source import Code
from .trial import has_files

#: How the config calls the bit policy.
QUANT = 'quant'
_NONE: Mapping[str, Any] = {}


def wrapped_model(
    model: dict,
    parts: Sequence[Part],
    in_float: Mapping[str, Sequence[str]] = _NONE,
    changes: Mapping[str, dict] = _NONE,
) -> dict:
    """What a student's config changes in ``model`` of its base.

    Args:
        model (dict): Config of the float detector.
        parts (Sequence[Part]): What to wrap.
        in_float (Mapping[str, Sequence[str]]): Path of a part -> patterns of
            layers inside that stay in float.
        changes (Mapping[str, dict]): Path of a part that is a list of
            modules -> further keys of each, such as ``num_classes``.

    Returns:
        dict: Nested as the model is. Values that refer to the base config or
        to the policy are :class:`Code`.
    """
    written: dict[str, Any] = {}
    for part in parts:
        quant = _policy(in_float.get(part.path, ()))
        configs = module_configs(model, part)
        if part.listed:
            entry: Any = _listed(part, configs, quant, changes)
        else:
            entry = dict(
                type=part.wrapper,
                **{ARGUMENTS[part.wrapper]: type_name_in(configs[0])},
                quant=quant,
            )
        place(written, part.keys, entry)
    return written


def file_settings(
    config: dict, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bool | None]]:
    """Where a model's config names files of weights to start from.

    Teachers and the like, which :func:`.parts.find_parts` leaves alone, and
    lists are left out.

    Args:
        config (dict): Config of the float detector.
        above (tuple[str, ...]): Keys to ``config`` from the model on.

    Yields:
        tuple[tuple[str, ...], bool | None]: Keys from the model on, and the
        value that stands for no file there. It is None, or False for
        backbones of timm, which download their weights if it is True.
    """
    if has_files(config):
        yield (*above, 'init_cfg'), None
    given = config.get('pretrained')
    if given:
        yield (*above, 'pretrained'), False if given is True else None
    for key, value in config.items():
        if isinstance(value, dict) and not key.startswith(OTHERS):
            yield from file_settings(value, (*above, key))


def transformer_class(model: dict) -> str | None:
    """The wrapper of a detector whose transformer is part of the detector's
    class, such as 'QuantDINO'; None for all other detectors."""
    wrapper = f'Quant{type_name(model)}'
    return wrapper if wrapper in MODELS.module_dict else None


def type_name_in(config: dict) -> str:
    """A module's type as a config writes it, with its scope."""
    kind = config['type']
    return kind if isinstance(kind, str) else kind.__name__


def place(tree: dict, keys: Sequence[str], value: Any) -> None:
    """Put a value into nested dicts; dicts that are there already are kept
    and get its keys."""
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    last = keys[-1]
    if isinstance(value, dict) and isinstance(tree.get(last), dict):
        tree[last].update(value)
    else:
        tree[last] = value


def _policy(patterns: Sequence[str]) -> Any:
    if not patterns:
        return Code(QUANT)
    overrides = ', '.join(f'{pattern!r}: None' for pattern in patterns)
    return Code(f'dict({QUANT}, overrides={{{overrides}}})')


def _listed(
    part: Part,
    configs: Sequence[dict],
    quant: Code,
    changes: Mapping[str, dict],
) -> Any:
    """A list of modules. mmengine replaces a list as a whole, so what is not
    wrapped is repeated."""
    base = f'_base_.model.{part.path}'
    more = [
        f'{key}={value!r}' for key, value in changes.get(part.path, {}).items()
    ]
    argument = ARGUMENTS[part.wrapper]

    def wrapped(name: str, pad: str) -> str:
        entries = [
            name,
            f'type={part.wrapper!r}',
            f'{argument}={name}.type',
            f'{QUANT}={quant}',
            *more,
        ]
        lines = ''.join(f'{pad}    {entry},\n' for entry in entries)
        return f'dict(\n{lines}{pad})'

    if all(part.wrapped):
        one = wrapped('part', '    ')
        return Code(f'[\n    {one}\n    for part in {base}\n]')
    return [
        Code(wrapped(f'{base}[{i}]', '') if does else f'{base}[{i}]')
        for i, (does, _) in enumerate(zip(part.wrapped, configs))
    ]
