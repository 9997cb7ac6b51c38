"""The text of a student's config."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmgor.datasets import read_annotations
from mmgor.datasets.data_folder import DataFolder
from mmgor.io.config_reader import type_name

from . import recipe
from .checkpoints import path_from
from .data import class_settings, data_entries
from .parts import Part, module_configs
from .request import Findings, Request, command
from .schedule import base_hooks, scaled_schedule, scheduler_hook
from .source import Code, assignment
from .trial import has_files
from .wrapping import (
    QUANT,
    file_settings,
    place,
    transformer_class,
    type_name_in,
    wrapped_model,
)


@dataclass
class Section:
    """One entry of the config.

    Attributes:
        name (str): Its key.
        value (Any): Plain values and :class:`Code`.
        comment (str): Lines that stand above it; '' for none.
    """

    name: str
    value: Any
    comment: str = ''


@dataclass
class StudentConfig:
    """The entries of a student's config, in their order.

    Attributes:
        title (str): What it trains, one line.
        command (str): The command that wrote it.
        base (str): The float detector's config, as ``_base_`` names it.
        sections (list[Section]): The rest.
    """

    title: str
    command: str
    base: str
    sections: list[Section] = field(default_factory=list)

    def add(self, name: str, value: Any, comment: str = '') -> None:
        """Append an entry."""
        self.sections.append(Section(name, value, comment))

    def text(self) -> str:
        """The source of the config file."""
        # A path in it must not end the text that it stands in.
        command = self.command.replace('\\', '\\\\').replace('"', '\\"')
        return (
            f'"""{self.title}\n\nWritten by\n\n    {command}\n\n'
            'Change what you like; docs/your_own_config.md explains every '
            'line.\n"""\n\n'
            + assignment('_base_', self.base)
            + ''.join(_section(section) for section in self.sections)
        )


def _section(section: Section) -> str:
    lines = [f'# {line}\n' for line in section.comment.splitlines()]
    return ''.join(lines) + assignment(section.name, section.value)


def title(
    detector: str, bits: tuple[int, int], teachers: Sequence[str]
) -> str:
    """What a config trains, as one line.

    Example:
        >>> title('ATSS', (4, 8), ['r101'])
        'ATSS at W4A8 learns from r101.'
    """
    student = f'{detector} at W{bits[0]}A{bits[1]}'
    if not teachers:
        return f'{student}, without a teacher.'
    *others, last = teachers
    names = f'{", ".join(others)} and {last}' if others else last
    return f'{student} learns from {names}.'


def write_config(request: Request, found: Findings) -> StudentConfig:
    """Put the student's config together.

    Args:
        request (Request): What was asked for.
        found (Findings): What it is written from.
    """
    cfg = found.cfg
    config = StudentConfig(
        title(
            type_name(cfg['model']),
            (request.w_bits, request.a_bits),
            [teacher.name for teacher in found.teachers],
        ),
        command(request),
        path_from(request.out.resolve().parent, request.config),
    )
    config.add('custom_imports', recipe.imports(cfg))
    config.add('quant', found.quant, 'First and prediction layers: 8 bits.')
    config.add('model', _model(found))
    loaders: dict[str, Any] = {}
    if found.data is not None:
        loaders = data_entries(cfg, found.data, str(request.data))
    collate = recipe.collate_function(cfg, request.config)
    if collate is not None:
        train = loaders.setdefault('train_dataloader', {})
        train['collate_fn'] = collate
    for name, value in loaders.items():
        config.add(name, value)
    if found.checkpoint is not None:
        start = 'The float student to start from.'
        config.add('load_from', found.checkpoint, start)
    if cfg.get('work_dir'):
        folder = f'work_dirs/{request.out.stem}'
        config.add('work_dir', folder, 'Not the one of the float detector.')
    if cfg.get('resume'):
        config.add('resume', False)
    optimizer, why = recipe.optimizer(cfg)
    if optimizer is not None:
        config.add('optim_wrapper', optimizer, f'{why}.')
    length = scaled_schedule(cfg, request.epochs, _iterations(found))
    for name, value in length.items():
        config.add(name, value)
    defaults: dict[str, Any] = dict(checkpoint=dict(type='SafeCheckpointHook'))
    scheduler = scheduler_hook(cfg, request.epochs)
    if scheduler:
        defaults['param_scheduler'] = scheduler
    config.add('default_hooks', defaults)
    hooks = [
        *base_hooks(cfg, request.epochs),
        *recipe.hooks(bool(found.teachers)),
    ]
    config.add('custom_hooks', hooks)
    return config


def _model(found: Findings) -> dict:
    """The entry ``model``."""
    model = found.cfg['model']
    counts, listed = number_of_classes(found.cfg, found.parts, found.data)
    if found.checkpoint is not None:  # which has the weights of all parts
        for part in found.parts:
            configs = module_configs(model, part)
            if part.listed and any(map(has_files, configs)):
                listed.setdefault(part.path, {})['init_cfg'] = None
    changes = wrapped_model(
        model,
        found.parts,
        in_float(found.parts, found.probe.silent),
        listed,
    )
    if found.checkpoint is not None:
        for keys, nothing in file_settings(model):
            place(changes, keys, nothing)
    for keys, count in counts:
        place(changes, keys, count)
    transformer = transformer_class(model)
    detector = transformer or type_name_in(model)
    head: dict[str, Any] = dict(type=transformer) if transformer else {}
    if found.choice is not None:
        head = dict(type='GoRDetector', detector=detector)
    if transformer:
        head['quant'] = Code(QUANT)
    written = {**head, **changes}
    if found.choice is not None:
        written.update(
            teachers={
                one.name: dict(config=one.config, checkpoint=one.checkpoint)
                for one in found.teachers
            },
            kd_heads=found.choice.kd_heads,
            gor_weighting=dict(type='GoRWeighting'),
        )
    return written


def _iterations(found: Findings) -> int | None:
    """Iterations of an epoch on the user's own images."""
    if found.data is None:
        return None
    images = read_annotations(found.data.root / 'train.json')['images']
    size = found.cfg['train_dataloader'].get('batch_size') or 1
    return -(-len(images) // size)


def number_of_classes(
    cfg: Any, parts: Sequence[Part], data: DataFolder | None
) -> tuple[list[tuple[tuple[str, ...], Any]], dict[str, dict]]:
    """Where a model gets the number of a folder's classes.

    Args:
        cfg (Config): The base config.
        parts (Sequence[Part]): What is wrapped.
        data (DataFolder, optional): None changes nothing.

    Returns:
        tuple[list, dict]: Keys in the model and what is written there; and,
        for parts that are lists, path of the part -> ``num_classes`` of each
        module.

    Raises:
        ValueError: If a module in a list has the number deeper inside.
    """
    listed = {part.keys: part for part in parts if part.listed}
    counts: list[tuple[tuple[str, ...], Any]] = []
    in_lists: dict[str, dict] = {}
    if data is None:
        return counts, in_lists
    for keys, value in class_settings(cfg, len(data.classes)):
        part = listed.get(keys[:-2])
        if part is not None:
            in_lists[part.path] = {keys[-1]: value}
        elif any(key.isdigit() for key in keys):
            raise ValueError(
                f'--data can not change model.{".".join(keys)}, which is '
                f'inside of a list. Change {keys[-1]} in your own config, '
                'and give that one.'
            )
        else:
            counts.append((keys, _short(value)))
    return counts, in_lists


def _short(value: Any) -> Any:
    """Weights of classes as a sum of lists; numbers as they are."""
    if not isinstance(value, list):
        return value
    return Code(f'[{value[0]!r}] * {len(value) - 1} + [{value[-1]!r}]')


def in_float(
    parts: Sequence[Part], silent: Sequence[str]
) -> dict[str, list[str]]:
    """Path of a part -> patterns of its layers that never run, and so can't
    be calibrated.

    Args:
        parts (Sequence[Part]): What is wrapped.
        silent (Sequence[str]): Paths of the layers in the detector.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in silent:
        for part in parts:
            inside = f'{part.path}.'
            if not name.startswith(inside):
                continue
            own = name.removeprefix(inside)
            if part.listed:  # each module has a policy of its own
                own = own.partition('.')[2]
            if own not in found[part.path]:
                found[part.path].append(own)
    return dict(found)
