"""Finds the files of a training in its work directory."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgor.io.resume import checkpoints_of

_NUMBER = re.compile(r'(\d+)\.pth$')


@dataclass(frozen=True)
class RunFiles:
    """The files of a training; what does not exist is None or empty.

    Attributes:
        folder (Path): The work directory.
        config (Path, optional): The complete config of its newest start.
        logs (list[Path]): ``scalars.json`` of each start, oldest first.
        checkpoints (list[Path]): In the order of training.
        best (Path, optional): The best one, if the run kept it.
    """

    folder: Path
    config: Path | None
    logs: list[Path]
    checkpoints: list[Path]
    best: Path | None


@dataclass(frozen=True)
class Taught:
    """Who taught the student.

    Attributes:
        teachers (dict[str, str]): Name of a teacher -> its checkpoint.
        heads (dict[str, list[str]]): Name of a KD head -> names of its
            teachers.
    """

    teachers: dict[str, str]
    heads: dict[str, list[str]]


def find_teachers(cfg: Any) -> Taught:
    """The teachers in the config of a training, empty if it had none."""
    model = cfg.get('model') or {}
    specs = model.get('teachers') or {}
    heads = {}
    for name, head in (model.get('kd_heads') or {}).items():
        chosen = head.get('teacher') or list(specs)
        heads[name] = [chosen] if isinstance(chosen, str) else [*chosen]
    paths = {name: str(spec.get('checkpoint')) for name, spec in specs.items()}
    return Taught(paths, heads)


def find_run(folder: Path) -> RunFiles:
    """The files of a training.

    Args:
        folder (Path): Its work directory.

    Raises:
        FileNotFoundError: If there is no such folder, or neither a log nor a
            checkpoint in it.
    """
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    listed = [Path(path) for path in checkpoints_of(folder)]
    last = listed[0] if listed else folder
    if (folder / 'last_checkpoint').is_file() and _NUMBER.search(last.name):
        # Later ones are of a training that this one did not resume.
        listed = [p for p in listed if _number(p) <= _number(last)]
    checkpoints = sorted((p for p in listed if p.is_file()), key=_number)
    best = sorted(folder.glob('best_*.pth'), key=_number)
    if not (logs or checkpoints or best):
        what = 'is no folder' if not folder.is_dir() else 'has neither'
        raise FileNotFoundError(
            f'{folder} {what}; expected the work directory of a training, '
            'with a log (*/vis_data/scalars.json) or a checkpoint (*.pth). '
            'mmdet names it work_dirs/<name of the config> unless --work-dir '
            'was given.'
        )
    return RunFiles(
        folder,
        _config(folder, logs),
        logs,
        checkpoints,
        best[-1] if best else None,
    )


def _number(path: Path) -> int:
    """The epoch or iteration in a checkpoint's name, or -1."""
    found = _NUMBER.search(path.name)
    return int(found[1]) if found else -1


def _config(folder: Path, logs: list[Path]) -> Path | None:
    beside = [log.with_name('config.py') for log in reversed(logs)]
    top = sorted(folder.glob('*.py'), key=lambda p: p.stat().st_mtime)
    found = [path for path in [*beside, *reversed(top)] if path.is_file()]
    return found[0] if found else None
