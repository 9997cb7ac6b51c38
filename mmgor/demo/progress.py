"""A training run shown in few lines, its whole log kept in a file."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_PROGRESS = re.compile(
    r'Epoch\(train\)\s+\[\s*(\d+)\]\[\s*(\d+)/(\d+)\].*?'
    r'eta: (\S+)(.*)'
)
_SHOWN = re.compile(r'\b(loss|gor_w_task|gor_w_kd): (\S+)')
_WARNING = re.compile(r' - WARNING - (.*)')
# mmengine says these in every run, and nobody needs to act on them.
_USUAL = ('FileClient', 'HardDiskBackend', '`metrics` is an empty dict')


def run_condensed(
    command: list[str], log: Path, tell: Callable[[str], None]
) -> None:
    """Run a command from the repository; show its log condensed.

    Args:
        command (list[str]): Program and arguments.
        log (Path): Takes the whole output.
        tell (Callable): Takes the lines for the user.

    Raises:
        RuntimeError: If the command fails, with the end of its log.
    """
    environment = dict(os.environ)
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(REPOSITORY), environment.get('PYTHONPATH', '')]
    )
    with (
        log.open('w', buffering=1) as file,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            short = condense(line)
            if short:
                tell(short)
    if process.returncode:
        tail = log.read_text().splitlines()[-15:]
        raise RuntimeError(
            'training failed; the end of ' + str(log) + ':\n' + '\n'.join(tail)
        )


def condense(line: str) -> str | None:
    """What a user wants to see of a log line, or None if nothing.

    Example:
        >>> condense('Epoch(train) [1][20/37] lr: 1e-3 eta: 0:01:02 '
        ...          'time: 0.3 loss: 1.2 loss_cls: 0.8')
        'epoch 1  20/37  loss 1.2  eta 0:01:02'
    """
    warning = _WARNING.search(line)
    if warning and not any(usual in line for usual in _USUAL):
        return f'warning: {warning[1]}'
    found = _PROGRESS.search(line)
    if found is None:
        return None
    epoch, step, steps, eta, rest = found.groups()
    values = '  '.join(
        f'{name} {value}' for name, value in _SHOWN.findall(rest)
    )
    return f'epoch {epoch}  {step}/{steps}  {values}  eta {eta}'
