"""Results as JSON lines: one line an arm that ended, never rewritten."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path

from .runs import Key, run_name

DONE, FAILED, SKIPPED = 'done', 'failed', 'skipped'


@dataclass(frozen=True)
class Record:
    """One line.

    Args:
        arm (str): Name in the plan.
        bits (str): Name in the plan, or 'float'.
        seed (int): Of the run.
        data (str): Name in the plan.
        epochs (int): 0: calibrated only.
        mAP (float, optional): COCO mAP of the last epoch, of 1.
        AP50 (float, optional): At IoU 0.5, of 1.
        config_hash (str): See :mod:`mmgor.ledger.runs`.
        parents (dict[str, str]): Name of each run that it needed to the
            first 12 hex digits of the SHA-256 of that one's last weights.
        commit (str): Of the code, '-dirty' if it had changes.
        device (str): Name of the processor or GPU.
        wall_s (float, optional): Seconds it took.
        gor_w_task (float, optional): Weight of the task loss, mean over the
            logged iterations of the last epoch.
        gor_w_kd (float, optional): Weight of the distillation loss, likewise.
        status (str): 'done', 'failed' or 'skipped' (what it needs failed).
        reason (str): Of what went wrong, '' if nothing.
    """

    arm: str
    bits: str
    seed: int
    data: str
    epochs: int
    mAP: float | None
    AP50: float | None
    config_hash: str
    parents: dict[str, str]
    commit: str
    device: str
    wall_s: float | None
    gor_w_task: float | None
    gor_w_kd: float | None
    status: str
    reason: str

    @property
    def key(self) -> Key:
        """Data, arm, bits, seed."""
        return self.data, self.arm, self.bits, self.seed

    @property
    def name(self) -> str:
        """The run's folder below the plan's."""
        return run_name(self.key)


def read_records(path: Path) -> dict[Key, Record]:
    """The last line of each run; {} if the file does not exist.

    Raises:
        ValueError: If a line is no record, with its number; empty ones are
            passed over.
    """
    records = {}
    text = path.read_text() if path.is_file() else ''
    names = {field.name for field in fields(Record)}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f'{path}, line {number}: expected a JSON object ({error}); '
                'remove the line, then the arm runs again.'
            ) from error
        if not isinstance(content, dict) or set(content) != names:
            raise ValueError(
                f'{path}, line {number}: expected the keys {sorted(names)}, '
                f'got {line[:200]}.'
            )
        record = Record(**content)
        _check_values(record, f'{path}, line {number}')
        records[record.key] = record
    return records


def _check_values(record: Record, where: str) -> None:
    """What the tables count on; a line may come from an editor."""
    if record.status not in (DONE, FAILED, SKIPPED):
        raise ValueError(
            f'{where}: expected status {DONE!r}, {FAILED!r} or {SKIPPED!r}, '
            f'got {record.status!r}.'
        )
    for name in ('mAP', 'AP50', 'wall_s', 'gor_w_task', 'gor_w_kd'):
        value = getattr(record, name)
        needed = record.status == DONE and name in ('mAP', 'AP50')
        number = isinstance(value, (int, float)) and isfinite(value)
        if not number and (needed or value is not None):
            raise ValueError(
                f'{where}: expected {name} to be a finite number'
                f'{"" if needed else " or null"}, got {value!r}.'
            )


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Keep a results file for this process and the trainings it starts.

    Args:
        path (Path): Is made if it does not exist.

    Yields:
        int: File descriptor. The lock holds until every process that
        inherited it has ended, so that no arm is trained twice at a time.

    Raises:
        RuntimeError: If another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f'{path} is in use by another ledger, or by a training that '
                'outlived one that was killed. Wait until it has ended, or '
                f'end it: `fuser -v {path}` lists the processes.'
            ) from None
        yield file
    finally:
        os.close(file)


def append_record(file: int, record: Record) -> None:
    """Add a line as a whole or not at all.

    Args:
        file (int): From :func:`locked`.
        record (Record): What to add.

    Raises:
        OSError: If the disk is full; the file is as before then.
    """
    line = (json.dumps(asdict(record), allow_nan=False) + '\n').encode()
    before = os.fstat(file).st_size
    if before and os.pread(file, 1, before - 1) != b'\n':
        line = b'\n' + line  # an editor may leave the last line open
    if os.write(file, line) < len(line):
        os.ftruncate(file, before)
        raise OSError(f'disk full; not recorded: {line.decode()}')
    os.fsync(file)
