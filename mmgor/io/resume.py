"""Find the checkpoint in a work directory from which a run continues."""

import logging
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from .checkpoint_reader import read_ahead

_NUMBERED = re.compile(r'(?!best_|\.).*\d\.pth')


def find_checkpoint(work_dir: str | Path) -> str | None:
    """The newest good checkpoint of a run.

    This is the file that ``last_checkpoint`` names, if it is good, else the
    newest good one in the same folder. Files are read to find out whether they
    are good; the Runner need not read the good one again
    (:func:`.checkpoint_reader.read_ahead`). The log names the checkpoint, and
    warns of each bad one.

    Args:
        work_dir (str | Path): Work directory of the run.

    Returns:
        str | None: Path of the checkpoint, None if there is none. If
        ``last_checkpoint`` names a URL or a folder, it is returned unchecked.
    """
    for candidate in checkpoints_of(Path(work_dir)):
        fault = _fault(candidate)
        if not fault:
            print_log(
                f'Resuming from {candidate}, the newest good checkpoint of '
                f'{work_dir}.',
                logger='current',
            )
            return candidate
        print_log(
            f'Checkpoint {candidate} is skipped: {fault}',
            logger='current',
            level=logging.WARNING,
        )
    return None


def keep_seed(cfg: Config) -> None:
    """Let a resumed run shuffle its data as the run did before.

    Without a seed in the config, mmengine draws one, and gives it to the
    sampler before it reads the checkpoint. So the seed of the checkpoint has
    to be in the config before the Runner is built.

    Args:
        cfg (Config): Of a training, changed in place if it is to be resumed
            from a local file and has no ``randomness.seed``.
    """
    randomness = cfg.get('randomness') or {}
    if not cfg.get('resume') or randomness.get('seed') is not None:
        return
    named = cfg.resume if isinstance(cfg.resume, str) else cfg.get('load_from')
    path = named or find_checkpoint(cfg.work_dir)
    if path is None or not Path(path).is_file():
        return
    content = read_ahead(path)
    seed = (content.get('meta') or {}).get('seed')
    if seed is not None:
        cfg.randomness = dict(randomness, seed=seed)


def checkpoints_of(work_dir: Path) -> list[str]:
    """The checkpoints of a run, without the best ones.

    Args:
        work_dir (Path): Work directory of the run.

    Returns:
        list[str]: Paths. That in ``last_checkpoint`` comes first, which may
        be a URL or a folder, then the others, the newest first.
    """
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
    """Why a run can't continue from a checkpoint; '' if it can."""
    if '://' in candidate or Path(candidate).is_dir():
        return ''
    try:
        content = read_ahead(candidate)
    except Exception as error:  # the unpickler raises whatever it meets
        return f'{type(error).__name__}: {error}'
    if not isinstance(content, dict) or 'message_hub' not in content:
        return 'expected a checkpoint of a training, with a message_hub.'
    return ''
