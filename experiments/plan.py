"""A plan: which arms, at which bits, with which seeds, on which data."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgor.datasets.data_folder import DataFolder, read_data_folder

from .plan_file import check_plan, option_values, read_plan_file

#: Bits of an arm that names none.
FLOAT = 'float'
WORK_DIR = Path('work_dirs/experiments')

# Most arms share a file, which takes a while to read.
_config = cache(Config.fromfile)


@dataclass(frozen=True)
class Arm:
    """One arm of a plan, trained once for each of its bits and seeds.

    Args:
        bits (tuple[str, ...]): ``('float', )`` for an arm that is not
            quantized.
        start (str, optional): Arm whose last weights it starts from.
        teachers (dict[str, str]): Name in the config's ``model.teachers`` to
            the arm that is this teacher.
        epochs (int, optional): 0: calibrated and evaluated, not trained;
            None: as the config says.
        once (bool): A teacher: trained with seed 0 only.
    """

    name: str
    config: Path
    options: dict[str, Any]
    bits: tuple[str, ...]
    start: str | None
    teachers: dict[str, str]
    epochs: int | None
    once: bool

    @property
    def base(self) -> Config:
        """The content of the config file, not to be changed."""
        return _config(self.config)

    @property
    def needs(self) -> tuple[str, ...]:
        """Arms that must be done before this one starts."""
        start = () if self.start is None else (self.start,)
        return tuple(dict.fromkeys((*start, *self.teachers.values())))


@dataclass(frozen=True)
class Plan:
    """A plan file with its folders filled in; docs/experiments.md has the
    keys. ``results`` is the ``.jsonl`` with one line per run that ended."""

    results: Path
    data: dict[str, DataFolder]
    weights: dict[str, Path]
    seeds: tuple[int, ...]
    bits: dict[str, dict[str, Any]]
    arms: dict[str, Arm]
    workers: int | None
    threads: int

    @property
    def runs_folder(self) -> Path:
        """Holds one folder per run; beside the results, named like them."""
        return self.results.with_suffix('')

    def path(self, kind: str, name: str) -> Path:
        """The path that a marker ``<kind:name>`` in a config stands for."""
        if kind == 'data':
            return self.data[name].root
        if kind == 'weights':
            return self.weights[name]
        return self.runs_folder / name


def read_plan(
    file: Path,
    data: dict[str, Path] | None = None,
    weights: dict[str, Path] | None = None,
    seeds: list[int] | None = None,
    work_dir: Path = WORK_DIR,
) -> Plan:
    """Read and check a plan file.

    Args:
        file (Path): YAML.
        data (dict[str, Path], optional): Folders by the plan's names; they
            win over the file's, as do ``weights`` and ``seeds``.
        work_dir (Path): Where ``<name of the file>.jsonl`` and the runs are.

    Raises:
        FileNotFoundError: If a folder or a file is missing.
        ValueError: If the plan is not complete and consistent.
    """
    content = read_plan_file(file)
    if seeds and isinstance(content, dict):
        content['seeds'] = seeds
    results = work_dir / f'{file.stem}.jsonl'
    return make_plan(content, results, data or {}, weights or {})


def make_plan(
    content: dict[str, Any],
    results: Path,
    data: dict[str, Path],
    weights: dict[str, Path],
) -> Plan:
    """A plan from the content of its file; see :func:`read_plan`.

    Relative paths count from the current folder.
    """
    check_plan(content)
    bits = content.get('bits', {})
    if FLOAT in bits:
        raise ValueError(
            f'bits {FLOAT!r} are those of arms that name none; choose '
            'another name.'
        )
    folders = _paths(content, 'data', data)
    files = _paths(content, 'weights', weights)
    for name, file in files.items():
        if not file.is_file():
            raise FileNotFoundError(f'weights {name!r} not found: {file}')
    return Plan(
        results=results.resolve(),
        data={k: read_data_folder(v) for k, v in folders.items()},
        weights=files,
        seeds=tuple(content['seeds']),
        bits={k: option_values(v, f'bits.{k}') for k, v in bits.items()},
        arms=_read_arms(content, tuple(bits)),
        workers=content.get('workers'),
        threads=content.get('threads', 1),
    )


def _paths(content: dict, what: str, given: dict[str, Path]) -> dict:
    written = content.get(what, {})
    unknown = sorted(set(given) - set(written))
    if unknown:
        raise ValueError(
            f'--{what} names {unknown}; the plan knows {sorted(written)}.'
        )
    paths = {**written, **given}
    for name, path in paths.items():
        if path is None:
            raise ValueError(
                f'the plan leaves {what} {name!r} open; type --{what} '
                f'{name}=PATH.'
            )
    return {name: Path(path).resolve() for name, path in paths.items()}


def _read_arms(content: dict, bits: tuple[str, ...]) -> dict[str, Arm]:
    teachers, students = content.get('teachers', {}), content['arms']
    twice = sorted(set(teachers) & set(students))
    if twice:
        raise ValueError(f'{twice} are both teachers and arms; rename one.')
    arms = {}
    for name, entry in {**teachers, **students}.items():
        config = Path(entry['config'])
        if not config.is_file() or config.suffix != '.py':
            raise FileNotFoundError(
                f'config of arm {name!r} not found: {config}; expected a .py '
                f'file relative to {Path.cwd()}.'
            )
        chosen = tuple(entry.get('bits', [FLOAT]))
        unknown = sorted(set(chosen) - {*bits, FLOAT})
        if unknown:
            raise ValueError(
                f'arm {name!r} names the bits {unknown}; the plan has '
                f'{list(bits)}.'
            )
        arms[name] = Arm(
            name=name,
            config=config,
            options=option_values(entry.get('options', {}), f'arm {name!r}'),
            bits=chosen,
            start=entry.get('start'),
            teachers=entry.get('teachers', {}),
            epochs=entry.get('epochs', content.get('epochs')),
            once=name in teachers,
        )
    for arm in arms.values():
        _check_needs(arm, arms, ())
    return arms


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
