"""One training as a process of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmgor.demo.progress import REPOSITORY, condense

from .plan import Plan
from .runs import Run, checkpoint_hash, write_run

#: Takes the config file as its argument.
TRAIN = (sys.executable, '-u', str(REPOSITORY / 'tools' / 'train.py'))
# For a training to write its last lines.
_PATIENCE_S = 10
_LOG_TAIL_BYTES = 20_000


class Training:
    """A started run.

    Attributes:
        parents (dict[str, str]): Name of each run that it needs to the
            :func:`~mmgor.ledger.runs.checkpoint_hash` of what it reads.

    Args:
        run (Run): What to train.
        plan (Plan): Whose run it is.
        command (tuple[str, ...]): Program and arguments before the config.
        lock (int): File descriptor of the lock, which the process keeps
            open (see :func:`mmgor.ledger.records.locked`).

    Raises:
        FileExistsError: If the run's folder holds files of something else.
    """

    def __init__(
        self, run: Run, plan: Plan, command: tuple[str, ...], lock: int
    ) -> None:
        self.folder = plan.runs_folder / run.name
        self.parents = {
            parent.name: checkpoint_hash(parent, plan.runs_folder)
            for parent in run.parents
        }
        _clear(self.folder)
        config = write_run(run, plan)
        environment = dict(os.environ, OMP_NUM_THREADS=str(plan.threads))
        environment['PYTHONPATH'] = os.pathsep.join(
            [str(REPOSITORY), environment.get('PYTHONPATH', '')]
        )
        self.started = time.monotonic()
        with self.log.open('wb') as log:
            # A session of its own: Ctrl-C reaches the ledger alone, which
            # then ends the training with its data loaders.
            self.process = subprocess.Popen(
                [*command, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock,),
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """All that it says."""
        return self.folder / 'train.log'

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    def progress(self) -> str:
        """Epoch, iteration, loss and time left, as last logged."""
        with self.log.open('rb') as log:
            log.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors='replace').splitlines()
        for line in reversed(lines):
            short = condense(line)
            if short and short.startswith('epoch'):
                return short
        return 'starting'

    def stop(self) -> None:
        """End it and all that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                continue


def check_folder(folder: Path) -> None:
    """Make sure that it holds nothing, or what an earlier start left.

    Raises:
        FileExistsError: If it holds files of something else.
    """
    if folder.exists() and (
        not folder.is_dir()
        or (any(folder.iterdir()) and not (folder / 'hashed.json').exists())
    ):
        raise FileExistsError(
            f'{folder} exists and is no run of a ledger (it has no '
            'hashed.json); move it away, or name other results in the plan.'
        )


def _clear(folder: Path) -> None:
    """What an earlier start left, which was never recorded."""
    check_folder(folder)
    if not folder.exists():
        return
    mark = folder / 'hashed.json'
    entries = list(folder.iterdir())
    # The mark goes last, so that this, too, can be interrupted.
    for entry in sorted(entries, key=lambda entry: entry == mark):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    folder.rmdir()
