"""A plan: which arms, at which bits, with which seeds, on which data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from mmgor.demo.data import DataFolder, read_data_folder

from .plan_values import (
    UniqueKeysLoader,
    check_keys,
    check_name,
    list_of,
    mapping_of,
    option_values,
    path_of,
    whole_number,
)

#: Bits of an arm that names none.
FLOAT = 'float'
_PLAN_KEYS = {
    'results',
    'data',
    'weights',
    'seeds',
    'epochs',
    'workers',
    'threads',
    'bits',
    'teachers',
    'arms',
}
_ARM_KEYS = {'config', 'options', 'bits', 'start', 'teachers', 'epochs'}


@dataclass(frozen=True)
class Arm:
    """One arm of a plan, to be trained once for each of its bits and seeds.

    Args:
        name (str): Among all arms and teachers.
        config (Path): The shipped config it is made from.
        base (Config): What is in it.
        options (dict): For ``Config.merge_from_dict``.
        bits (tuple[str, ...]): Names of the plan's bits; ``('float', )`` for
            an arm that is not quantized.
        start (str, optional): Arm whose last weights it starts from.
        teachers (dict[str, str]): Name in the config's ``model.teachers`` to
            the arm that is it.
        epochs (int): 0: calibrated and evaluated, not trained.
        once (bool): A teacher: trained with seed 0 only.
    """

    name: str
    config: Path
    base: Config
    options: dict[str, Any]
    bits: tuple[str, ...]
    start: str | None
    teachers: dict[str, str]
    epochs: int
    once: bool

    @property
    def needs(self) -> tuple[str, ...]:
        """Arms that must be done before this one starts."""
        start = () if self.start is None else (self.start,)
        return tuple(dict.fromkeys((*start, *self.teachers.values())))


@dataclass(frozen=True)
class Plan:
    """A plan file with its folders filled in.

    Args:
        results (Path): The ``.jsonl`` with one line an arm that ended.
        data (dict[str, DataFolder]): Name to checked folder.
        weights (dict[str, Path]): Name to file.
        seeds (tuple[int, ...]): Of every arm but the teachers.
        bits (dict[str, dict]): Name to options.
        arms (dict[str, Arm]): Teachers first.
        workers (int): Arms trained at the same time.
        threads (int): ``OMP_NUM_THREADS`` of each.
    """

    results: Path
    data: dict[str, DataFolder]
    weights: dict[str, Path]
    seeds: tuple[int, ...]
    bits: dict[str, dict[str, Any]]
    arms: dict[str, Arm]
    workers: int
    threads: int

    @property
    def runs_folder(self) -> Path:
        """One folder a run, beside the results and named like them."""
        return self.results.with_suffix('')


def read_plan(
    path: Path,
    data: dict[str, Path] | None = None,
    weights: dict[str, Path] | None = None,
    seeds: list[int] | None = None,
) -> Plan:
    """Read and check a plan file. Relative paths count from the current
    folder.

    Args:
        path (Path): YAML.
        data (dict[str, Path], optional): Folders by the plan's names; they
            win over the file's.
        weights (dict[str, Path], optional): Files, likewise.
        seeds (list[int], optional): In place of the file's.

    Raises:
        FileNotFoundError: If a folder or a file is missing.
        ValueError: If the plan is not complete and consistent.
    """
    if not path.is_file():
        raise FileNotFoundError(f'expected a plan, a YAML file, got {path}.')
    try:
        content = yaml.load(path.read_text(), Loader=UniqueKeysLoader)
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is no YAML file: {error}') from error
    check_keys(content, _PLAN_KEYS, {'results', 'data', 'seeds', 'arms'}, path)
    results = path_of(content['results'], 'results')
    if results.suffix != '.jsonl' or results.is_dir():
        raise ValueError(f'results expected a .jsonl file, got {results}.')
    folders = _paths(mapping_of(content, 'data'), data or {}, 'data')
    if not folders:
        raise ValueError('data: expected at least one folder.')
    files = _paths(mapping_of(content, 'weights'), weights or {}, 'weights')
    for name, file in files.items():
        if not file.is_file():
            raise FileNotFoundError(f'weights {name!r} not found: {file}')
    bits = {
        check_name(name, 'bits'): option_values(options, f'bits.{name}')
        for name, options in mapping_of(content, 'bits').items()
    }
    if FLOAT in bits:
        raise ValueError(
            f'bits {FLOAT!r} are those of arms that name none; choose '
            'another name.'
        )
    seeds = list_of(seeds or content['seeds'], 'seeds')
    arms = _read_arms(content, tuple(bits))
    return Plan(
        results=results.resolve(),
        data={k: read_data_folder(v.resolve()) for k, v in folders.items()},
        weights={k: v.resolve() for k, v in files.items()},
        seeds=tuple(whole_number(seed, 'a seed', 0) for seed in seeds),
        bits=bits,
        arms=arms,
        workers=whole_number(content.get('workers', 1), 'workers', 1),
        threads=whole_number(content.get('threads', 1), 'threads', 1),
    )


def _paths(
    written: dict[str, Any], given: dict[str, Path], what: str
) -> dict[str, Path]:
    unknown = sorted(set(given) - set(written))
    if unknown:
        raise ValueError(
            f'--{what} names {unknown}; the plan knows {sorted(written)}.'
        )
    paths = {}
    for name, path in written.items():
        check_name(name, what)
        if name in given:
            paths[name] = given[name]
        elif path is None:
            raise ValueError(
                f'the plan leaves {what} {name!r} open; type --{what} '
                f'{name}=PATH.'
            )
        else:
            paths[name] = path_of(path, f'{what} {name!r}')
    return paths


def _read_arms(content: dict, bits: tuple[str, ...]) -> dict[str, Arm]:
    teachers, students = (
        mapping_of(content, key) for key in ('teachers', 'arms')
    )
    twice = sorted(set(teachers) & set(students))
    if twice:
        raise ValueError(f'{twice} are both teachers and arms; rename one.')
    if not students:
        raise ValueError('arms: expected at least one.')
    epochs = content.get('epochs')
    # Most arms share a file, which takes a while to read.
    read = cache(Config.fromfile)
    arms = {
        name: _read_arm(name, entry, epochs, bits, name in teachers, read)
        for name, entry in (*teachers.items(), *students.items())
    }
    for arm in arms.values():
        _check_needs(arm, arms, ())
    return arms


def _read_arm(
    name: str,
    entry: Any,
    epochs: Any,
    bits: tuple[str, ...],
    once: bool,
    read: Callable[[Path], Config],
) -> Arm:
    check_name(name, 'arm')
    check_keys(entry, _ARM_KEYS, {'config'}, f'arm {name!r}')
    config = path_of(entry['config'], f'config of arm {name!r}')
    if not config.is_file() or config.suffix != '.py':
        raise FileNotFoundError(
            f'config of arm {name!r} not found: {config}; expected a .py file '
            f'relative to {Path.cwd()}.'
        )
    chosen = tuple(list_of(entry.get('bits', [FLOAT]), f'bits of {name!r}'))
    for each in chosen:
        check_name(each, f'bits of {name!r}')
    unknown = sorted(set(chosen) - {*bits, FLOAT})
    if unknown:
        raise ValueError(
            f'arm {name!r} names the bits {unknown}; the plan has '
            f'{list(bits)}.'
        )
    start = entry.get('start')
    teachers = mapping_of(entry, 'teachers')
    for need in (*([] if start is None else [start]), *teachers.values()):
        check_name(need, f'arm {name!r} needs')
    return Arm(
        name=name,
        config=config,
        base=read(config),
        options=option_values(entry.get('options', {}), f'arm {name!r}'),
        bits=chosen,
        start=start,
        teachers=teachers,
        epochs=whole_number(
            entry.get('epochs', epochs), f'epochs of arm {name!r}', 0
        ),
        once=once,
    )


def _check_needs(arm: Arm, arms: dict[str, Arm], way: tuple[str, ...]) -> None:
    if arm.name in way:
        circle = ' -> '.join((*way, arm.name))
        raise ValueError(f'arms wait for each other: {circle}.')
    for need in arm.needs:
        if need not in arms:
            raise ValueError(
                f'arm {arm.name!r} needs {need!r}; the plan has {list(arms)}.'
            )
        _check_needs(arms[need], arms, (*way, arm.name))
