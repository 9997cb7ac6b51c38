"""Which checkpoint of a work directory a run goes on from."""

import logging
import re
from pathlib import Path

from mmengine.logging import print_log

from .checkpoint_reader import load_from_local

_NUMBERED = re.compile(r'(?!best_|\.).*\d\.pth')


def find_checkpoint(work_dir: str | Path) -> str | None:
    """The newest good checkpoint of a run; the log says which it is.

    The one that ``last_checkpoint`` names, else the newest of the others in
    its folder. Each is read; those that are damaged are named in a warning.

    Args:
        work_dir (str | Path): Of the run.

    Returns:
        str | None: None if there is none. What ``last_checkpoint`` names as
        a URL or a folder is not checked.
    """
    for candidate in _candidates(Path(work_dir)):
        fault = _fault(candidate)
        if not fault:
            print_log(
                f'Resumes from {candidate}, the newest good checkpoint of '
                f'{work_dir}.',
                logger='current',
            )
            return candidate
        print_log(
            f'{candidate} is passed over: {fault}',
            logger='current',
            level=logging.WARNING,
        )
    return None


def _candidates(work_dir: Path) -> list[str]:
    """The best first."""
    note = work_dir / 'last_checkpoint'
    last = note.read_text().strip() if note.is_file() else ''
    folder = work_dir
    if last and '://' not in last:
        # The work directory may have moved since.
        moved = work_dir / Path(last).name
        last = str(moved) if moved.exists() else last
        parent = Path(last).parent
        folder = parent if parent.is_dir() else work_dir
    others = [
        path for path in folder.glob('*.pth') if _NUMBERED.match(path.name)
    ]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return list(dict.fromkeys([*filter(None, [last]), *map(str, others)]))


def _fault(candidate: str) -> str:
    """Why a run can't go on from it; '' if nothing is known against it."""
    if '://' in candidate or Path(candidate).is_dir():
        return ''
    try:
        content = load_from_local(candidate, 'cpu')
    except Exception as error:  # the unpickler raises whatever it meets
        return f'{type(error).__name__}: {error}'
    if not isinstance(content, dict) or 'message_hub' not in content:
        return 'expected a checkpoint of a training, with its message_hub.'
    return ''
